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

"""Which weights a network has."""

from __future__ import annotations

from zlib import crc32

import torch
from torch import nn


def weights_checksum(network: nn.Module, checksum: int = 0) -> int:
    """
    The checksum (CRC32) of all parameters and buffers of a network, in their order.

    Args:
        network: the network.
        checksum: of what came before.

    Example::

        >>> network = nn.Linear(1, 1)
        >>> before = weights_checksum(network)
        >>> _ = network.bias.data.add_(1.0)
        >>> weights_checksum(network) == before
        False
    """
    for tensor in network.state_dict().values():
        if isinstance(tensor, torch.Tensor):  # a module may keep other things in its state
            content = tensor.detach().cpu().contiguous().flatten().view(dtype=torch.uint8)
            checksum = crc32(content.numpy(), checksum)  # type: ignore[arg-type]
    return checksum
