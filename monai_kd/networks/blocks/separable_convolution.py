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

"""A convolution in two steps: within each channel, then across channels."""

from __future__ import annotations

from torch import nn


class SeparableConvolution(nn.Sequential):
    """
    A depth-wise convolution, a point-wise one (kernel 1), batch normalisation, and ReLU; no biases but the norm's.

    Args:
        in_channels: channels that enter; each is convolved by itself first.
        out_channels: channels that leave.
        kernel_size: of the depth-wise convolution, (height, width), odd.

    Example::

        >>> import torch
        >>> SeparableConvolution(3, 8, kernel_size=(1, 5))(torch.zeros(2, 3, 16, 16)).shape
        torch.Size([2, 8, 16, 16])
    """

    def __init__(self, in_channels: int, out_channels: int, kernel_size: tuple[int, int]) -> None:
        padding = (kernel_size[0] // 2, kernel_size[1] // 2)
        super().__init__(
            nn.Conv2d(in_channels, in_channels, kernel_size, padding=padding, groups=in_channels, bias=False),
            nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
        )
