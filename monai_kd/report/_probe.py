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

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from monai.networks.utils import eval_mode
from torch import Tensor, nn


def probe_input(network: nn.Module, input_shape: Sequence[int]) -> Tensor:
    """Noise of the shape, on the device and in the type of the network's parameters."""
    if len(input_shape) < 3 or not all(isinstance(size, int) and size > 0 for size in input_shape):
        raise ValueError(f"`input_shape` must be (batch, channel, *spatial), all positive, but got {input_shape}.")
    like = next(network.parameters(), torch.zeros(1))
    generator = torch.Generator().manual_seed(0)
    return torch.randn(tuple(input_shape), generator=generator).to(like)


def probe(network: nn.Module, image: Tensor) -> Any:
    """One forward pass in eval mode without gradient; an input that does not suit the network is said so."""
    try:
        with eval_mode(network):
            return network(image)
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"`input_shape` must suit {type(network).__name__}, but got {tuple(image.shape)}: {error}"
        ) from error
