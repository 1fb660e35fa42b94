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

"""MobileNetV2's residual block, wide inside and narrow at its ends."""

from __future__ import annotations

import torch
from torch import nn

from monai_kd.networks.blocks.conv_norm import conv_norm


class InvertedResidual(nn.Module):
    """
    Expand the channels, convolve within each of them, and project back without an activation.

    Sandler et al., MobileNetV2, arXiv:1801.04381, Table 1 and Fig. 4d. Batch normalisation follows each convolution and
    ReLU6 the first two; no convolution has a bias. With an ``expansion`` of 1 there is nothing to expand. Submodules
    are named as in torchvision.

    Args:
        in_channels: channels that enter.
        out_channels: channels that leave.
        stride: of the depth-wise convolution. The identity is added where neither size nor channels change.
        expansion: channels inside, as a multiple of ``in_channels``.

    Example::

        >>> import torch
        >>> InvertedResidual(16, 24, stride=2)(torch.zeros(1, 16, 8, 8)).shape
        torch.Size([1, 24, 4, 4])
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, expansion: int = 6) -> None:
        super().__init__()
        inside = in_channels * expansion
        expand = [] if expansion == 1 else [conv_norm(in_channels, inside, kernel_size=1, act=nn.ReLU6())]
        self.conv = nn.Sequential(
            *expand,
            conv_norm(inside, inside, stride=stride, groups=inside, act=nn.ReLU6()),
            nn.Conv2d(inside, out_channels, kernel_size=1, bias=False),
            nn.BatchNorm2d(out_channels),
        )
        self.has_identity = stride == 1 and in_channels == out_channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """
        Args:
            x: (B, in_channels, H, W).

        Returns:
            (B, out_channels, H / stride, W / stride), rounded up.
        """
        return x + self.conv(x) if self.has_identity else self.conv(x)
