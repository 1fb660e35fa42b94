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

"""A decoder's step: enlarge, take the skip in, convolve."""

from __future__ import annotations

import torch
from torch import nn


class SkipUpsampling(nn.Module):
    """
    Enlarges the decoder's map, joins the encoder's to it (that one first), and convolves both.

    MONAI's ``UpCat`` does the same in eager mode; it cannot be compiled in one graph, which this can.

    Args:
        upsample: brings the decoder's map to the size of the encoder's.
        convs: takes the channels of both.

    Example::

        >>> import torch
        >>> block = SkipUpsampling(nn.Upsample(scale_factor=2), nn.Conv2d(6 + 4, 8, kernel_size=1))
        >>> block(torch.zeros(1, 6, 4, 4), torch.zeros(1, 4, 8, 8)).shape
        torch.Size([1, 8, 8, 8])
    """

    def __init__(self, upsample: nn.Module, convs: nn.Module) -> None:
        super().__init__()
        self.upsample = upsample
        self.convs = convs

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """
        Args:
            x: the decoder's map, (B, C, h, w).
            skip: the encoder's, (B, C', H, W).

        Returns:
            What ``convs`` makes of (B, C' + C, H, W).
        """
        return self.convs(torch.cat([skip, self.upsample(x)], dim=1))
