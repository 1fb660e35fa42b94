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

"""The ResNet-50 of ViT hybrids: weights standardised, groups normalised, three stages."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from monai_kd.networks.blocks.standardized_conv2d import StandardizedConv2d


class HybridResNetEncoder(nn.Module):
    """
    The convolutional half of R50-ViT (Dosovitskiy et al., ICLR 2021, arXiv:2010.11929, Sec. 3.1, "hybrid"; Kolesnikov
    et al., Big Transfer, ECCV 2020): a ResNet whose fourth stage gave its place to a transformer, with standardised
    weights and group normalisation.

    It stands as in the released code of TransUNet, which differs in two places from the code that trained the published
    weights: the pooling has no padding, which makes the map of the first stage one pixel smaller than 1/4 of the
    image, and the projection beside a residual branch is normalised channel by channel, there in 32 groups.

    Args:
        in_channels: channels of the image; 3 for the published weights.
        width: channels of the stem, divisible by 32; the stages have 4, 8 and 16 times as many. 64 is ResNet-50.
        blocks: residual blocks of the three stages.

    Raises:
        ValueError: when ``width`` is not a multiple of 32.

    Example::

        >>> import torch
        >>> [feature.shape[1:] for feature in HybridResNetEncoder()(torch.zeros(1, 3, 64, 64))]
        [torch.Size([64, 32, 32]), torch.Size([256, 16, 16]), torch.Size([512, 8, 8]), torch.Size([1024, 4, 4])]
    """

    def __init__(self, in_channels: int = 3, width: int = 64, blocks: Sequence[int] = (3, 4, 9)) -> None:
        super().__init__()
        if width < 1 or width % 32:
            raise ValueError(f"`width` must be a multiple of 32, the groups of its normalisation, but got {width}.")
        self.stem = nn.Sequential(
            StandardizedConv2d(in_channels, width, kernel_size=7, stride=2, padding=3, bias=False),
            nn.GroupNorm(32, width, eps=1e-6),
            nn.ReLU(),
        )  # 1/2
        self.pool = nn.MaxPool2d(kernel_size=3, stride=2)
        self.stage1 = _stage(width, 4 * width, blocks[0], stride=1)  # 1/4, less one pixel
        self.stage2 = _stage(4 * width, 8 * width, blocks[1], stride=2)  # 1/8
        self.stage3 = _stage(8 * width, 16 * width, blocks[2], stride=2)  # 1/16

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """
        Args:
            image: (B, in_channels, H, W), H and W divisible by 16, and not both 16.

        Returns:
            The outputs of the stem and of stage 1 to 3, at 1/2 to 1/16 of the size; that of stage 1 with a row and a
            column of zeros where the pooling lost one.
        """
        stem = self.stem(image)
        feature1 = self.stage1(self.pool(stem))
        feature2 = self.stage2(feature1)
        return stem, F.pad(feature1, (0, 1, 0, 1)), feature2, self.stage3(feature2)


class _Bottleneck(nn.Module):
    """Convolutions of kernel 1, 3 and 1 beside the identity or a projection."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        waist = out_channels // 4
        self.conv1 = StandardizedConv2d(in_channels, waist, kernel_size=1, bias=False)
        self.norm1 = nn.GroupNorm(32, waist, eps=1e-6)
        self.conv2 = StandardizedConv2d(waist, waist, kernel_size=3, stride=stride, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(32, waist, eps=1e-6)
        self.conv3 = StandardizedConv2d(waist, out_channels, kernel_size=1, bias=False)
        self.norm3 = nn.GroupNorm(32, out_channels, eps=1e-6)
        self.relu = nn.ReLU()
        self.projection = (
            nn.Identity() if in_channels == out_channels else _projection(in_channels, out_channels, stride)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        residual = self.relu(self.norm1(self.conv1(x)))
        residual = self.relu(self.norm2(self.conv2(residual)))
        return self.relu(self.norm3(self.conv3(residual)) + self.projection(x))


def _projection(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        StandardizedConv2d(in_channels, out_channels, kernel_size=1, stride=stride, bias=False),
        nn.GroupNorm(out_channels, out_channels),
    )


def _stage(in_channels: int, out_channels: int, blocks: int, stride: int) -> nn.Sequential:
    first = _Bottleneck(in_channels, out_channels, stride)
    return nn.Sequential(first, *(_Bottleneck(out_channels, out_channels, stride=1) for _ in range(blocks - 1)))
