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

"""U-Net with pyramid squeeze attention: both teachers of XP-Net."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from monai.networks.blocks import Convolution
from monai.networks.nets.basic_unet import Down, TwoConv
from torch import nn

from monai_kd.networks.blocks import ImageInput, PyramidSqueezeAttention, SkipUpsampling


class EPSAUNet(nn.Module):
    """
    U-Net for endoscopic frames with pyramid squeeze attention inside its first block: convolution, attention,
    convolution at full size, where the small structures still are.

    Ragu B et al., XP-Net, EndoCV 2022 (CEUR-WS Vol. 3148), Sec. 2.2.1: both teachers. No code was released. The network
    without attention is the U-Net of Table 1, 7,763,041 parameters, exactly: 3 channels in and 1 out, convolutions
    without bias and with batch normalisation, transposed convolutions with bias.

    With attention there are 7,774,298; the paper has 7,774,374, 76 more. The groups 1, 4, 8, 16 that EPSANet was
    released with are impossible here: 16 does not divide the 8 channels of a branch. The default 1, 2, 4, 8 gives
    11,232 of the paper's 11,333 weights of attention, and the layers that weight the branches, which EPSANet shares
    between them, 25 (8 channels to 1 to 8). A set for each branch would make it 11,332; what the last one is, the
    paper does not say.

    Logits are returned, in the paper their sigmoid. One frame of 512 x 512 costs 102.5 GFLOPs, counted as
    2 x multiply-accumulate by torch.

    For distillation, the maps that XP-Net's discriminator sees (Sec. 2.2.3), for an input of 512 x 512:

    ==============  ===============  =====================================
    path            shape            what
    ==============  ===============  =====================================
    ``encoder1``    32 x 512 x 512   first block, with the attention
    ``encoder3``    128 x 128 x 128  third, at 1/4
    ``decoder1``    256 x 64 x 64    first block of the decoder, at 1/8
    ``decoder3``    64 x 256 x 256   third, at 1/2
    ==============  ===============  =====================================

    Args:
        in_channels: channels of the image; 1 is repeated to 3, any other number enters the first convolution as it is.
        out_channels: maps of logits, 1 for the sigmoid of the paper.
        groups: of the attention's convolutions with kernel 3, 5, 7 and 9, each a divisor of 8.

    Raises:
        ValueError: when an argument is out of range, or the image is not (B, in_channels, H, W) with H and W divisible
            by 16.

    Example::

        >>> import torch
        >>> EPSAUNet().eval()(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 1, 64, 64])
    """

    def __init__(self, in_channels: int = 3, out_channels: int = 1, groups: Sequence[int] = (1, 2, 4, 8)) -> None:
        super().__init__()
        if out_channels < 1:
            raise ValueError(f"`out_channels` must be 1 or more, but got {out_channels}.")
        self.input = ImageInput(in_channels, divisor=16)
        conv = partial(Convolution, 2, act="relu", norm="batch", bias=False)
        down = partial(Down, 2, act="relu", norm="batch", bias=False)
        self.encoder1 = nn.Sequential(
            conv(self.input.out_channels, 32), PyramidSqueezeAttention(32, 32, groups=groups), conv(32, 32)
        )  # 1/1
        self.encoder2 = down(32, 64)  # 1/2
        self.encoder3 = down(64, 128)  # 1/4
        self.encoder4 = down(128, 256)  # 1/8
        self.bottleneck = down(256, 512)  # 1/16
        self.decoder1 = _up(512, 256)  # 1/8
        self.decoder2 = _up(256, 128)  # 1/4
        self.decoder3 = _up(128, 64)  # 1/2
        self.decoder4 = _up(64, 32)  # 1/1
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


def _up(in_channels: int, out_channels: int) -> SkipUpsampling:
    """Twice the size and half the channels, then the skip and two convolutions."""
    return SkipUpsampling(
        nn.ConvTranspose2d(in_channels, out_channels, kernel_size=2, stride=2),
        TwoConv(2, 2 * out_channels, out_channels, act="relu", norm="batch", bias=False),
    )
