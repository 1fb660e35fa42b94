# Copyright (c) monai_kd contributors
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Whether a network was built with random weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from monai_kd.networks.isolated_rng import isolated_rng


def check_not_random(network: nn.Module, build: Callable[[], nn.Module]) -> None:
    """
    Refuse random weights in a network that has to be trained. It is built a second time: trained weights that are
    read from a file are equal then, drawn ones differ.

    Args:
        network: what ``build`` returned.
        build: a callable without arguments.

    Raises:
        ValueError: when a parameter differs.

    Example::

        >>> check_not_random(nn.Identity(), nn.Identity)
    """
    own = dict(network.named_parameters())
    if not own:
        return
    with isolated_rng():
        torch.rand(1)  # so that the state differs from that of the first time
        if torch.cuda.is_initialized():
            torch.rand(1, device="cuda")
        other = dict(build().named_parameters())
    random = [name for name, value in own.items() if is_lazy(value) or not torch.equal(value, other[name])]
    if random:
        raise ValueError(
            f"`checkpoint` must be given for a `network` that is built with random weights, but got None, and "
            f"{len(random)} of {len(own)} parameters of {type(network).__name__} are random (`{random[0]}`); pass the "
            "file of the trained weights, or a module that has them."
        )
