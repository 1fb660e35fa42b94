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

"""Weights that are worth keeping."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


def check_finite(networks: Mapping[str, Any]) -> None:
    """
    Refuse weights and buffers that are not finite, as a loss that is NaN leaves them.

    Args:
        networks: modules by a name each; other objects are passed over.

    Raises:
        ValueError: with the first parameter or buffer that holds NaN or infinity.

    Example::

        >>> layer = nn.Linear(1, 1)
        >>> _ = layer.weight.data.fill_(float("nan"))
        >>> check_finite({"model": layer})
        Traceback (most recent call last):
        ValueError: the weights of `model` must be finite, but got nan in `weight`; ...
    """
    for name, network in networks.items():
        if not isinstance(network, nn.Module):
            continue
        for key, tensor in network.state_dict().items():
            if torch.is_tensor(tensor) and not torch.isfinite(tensor).all():
                value = tensor[~torch.isfinite(tensor)][0].item()
                raise ValueError(
                    f"the weights of `{name}` must be finite, but got {value} in `{key}`; they are not saved. Lower "
                    "the learning rate, switch `amp` off, or look for NaN in the images."
                )
