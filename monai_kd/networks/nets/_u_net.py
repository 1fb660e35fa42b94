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

"""The U-Net that XP-Net's teachers and student are made of."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from monai_kd.networks.blocks import ImageInput, SkipUpsampling


class UNetOfXPNet(nn.Module):
    """
    Five levels of 32 to 512 channels, transposed convolutions, and skips.

    Args:
        in_channels: channels of the image; 1 is repeated to 3, any other number enters the first convolution as it is.
        out_channels: maps of logits.
        first: makes the first block, 32 channels at full size, from the number of channels that enter.
        down: makes a block at half the size from the numbers of channels that enter and leave.
        convs: makes the convolutions behind a skip from these numbers.

    Raises:
        ValueError: when ``out_channels`` is below 1, or the image is not (B, in_channels, H, W) with H and W divisible
            by 16.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        first: Callable[[int], nn.Module],
        down: Callable[[int, int], nn.Module],
        convs: Callable[[int, int], nn.Module],
    ) -> None:
        super().__init__()
        if out_channels < 1:
            raise ValueError(f"`out_channels` must be 1 or more, but got {out_channels}.")

        def up(in_channels: int, out_channels: int) -> SkipUpsampling:
            """Twice the size and half the channels, then the skip and its convolutions."""
            larger = nn.ConvTranspose2d(in_channels, out_channels, kernel_size=2, stride=2)
            return SkipUpsampling(larger, convs(2 * out_channels, out_channels))

        self.input = ImageInput(in_channels, divisor=16)
        self.encoder1 = first(self.input.out_channels)  # 1/1
        self.encoder2 = down(32, 64)  # 1/2
        self.encoder3 = down(64, 128)  # 1/4
        self.encoder4 = down(128, 256)  # 1/8
        self.bottleneck = down(256, 512)  # 1/16
        self.decoder1 = up(512, 256)  # 1/8
        self.decoder2 = up(256, 128)  # 1/4
        self.decoder3 = up(128, 64)  # 1/2
        self.decoder4 = up(64, 32)  # 1/1
        self.head = nn.Conv2d(32, out_channels, kernel_size=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """
        Args:
            image: (B, in_channels, H, W), H and W divisible by 16.

        Returns:
            Logits (B, out_channels, H, W).
        """
        feature1 = self.encoder1(self.input(image))  # (B, 32, H, W)
        feature2 = self.encoder2(feature1)  # (B, 64, H / 2, W / 2)
        feature3 = self.encoder3(feature2)  # (B, 128, H / 4, W / 4)
        feature4 = self.encoder4(feature3)  # (B, 256, H / 8, W / 8)
        x = self.bottleneck(feature4)  # (B, 512, H / 16, W / 16)
        x = self.decoder1(x, feature4)
        x = self.decoder2(x, feature3)
        x = self.decoder3(x, feature2)
        return self.head(self.decoder4(x, feature1))
