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

"""U-Net of separable convolutions with pyramid squeeze attention: the student of XP-Net."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from monai_kd.networks.blocks import ImageInput, PyramidSqueezeAttention, SeparableConvolution, SkipUpsampling


class SeparableEPSAUNet(nn.Module):
    """
    The U-Net of XP-Net's teachers with separable convolutions: a kernel along the rows, then one along the columns,
    each within its channel and followed by a convolution of kernel 1; with pyramid squeeze attention between the two of
    the first block.

    Ragu B et al., XP-Net, EndoCV 2022 (CEUR-WS Vol. 3148), Sec. 2.2.2: the student. No code was released. The paper
    calls the kernels (1, 5) and (5, 1) point-wise and (1, 1) depth-wise; taken at its word that makes 4,628,065
    parameters before attention, so the names are read as exchanged. Transposed convolutions are not separable. All
    start from Kaiming's uniform initialisation (Sec. 3.2), as PyTorch's layers do by themselves.

    It has 1,513,033 parameters: 1,501,776 and 11,257 of attention (:py:class:`EPSAUNet`). The paper has 1,839,333; the
    326,300 more are unexplained. No way was found to reach that number with other orders, repetitions, biases,
    normalisations and upsamplings of such layers, so that the plain reading stands: 19% of the teacher, there 24%.

    Logits are returned, in the paper their sigmoid. One frame of 512 x 512 costs 21.1 GFLOPs, counted as
    2 x multiply-accumulate by torch, a fifth of the teacher's.

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
        >>> SeparableEPSAUNet().eval()(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 1, 64, 64])
    """

    def __init__(self, in_channels: int = 3, out_channels: int = 1, groups: Sequence[int] = (1, 2, 4, 8)) -> None:
        super().__init__()
        if out_channels < 1:
            raise ValueError(f"`out_channels` must be 1 or more, but got {out_channels}.")
        self.input = ImageInput(in_channels, divisor=16)
        first, second = _pair(self.input.out_channels, 32)
        self.encoder1 = nn.Sequential(first, PyramidSqueezeAttention(32, 32, groups=groups), second)  # 1/1
        self.encoder2 = _down(32, 64)  # 1/2
        self.encoder3 = _down(64, 128)  # 1/4
        self.encoder4 = _down(128, 256)  # 1/8
        self.bottleneck = _down(256, 512)  # 1/16
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


def _down(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(nn.MaxPool2d(kernel_size=2), *_pair(in_channels, out_channels))


def _up(in_channels: int, out_channels: int) -> SkipUpsampling:
    """Twice the size and half the channels, then the skip and two convolutions."""
    return SkipUpsampling(
        nn.ConvTranspose2d(in_channels, out_channels, kernel_size=2, stride=2),
        nn.Sequential(*_pair(2 * out_channels, out_channels)),
    )


def _pair(in_channels: int, out_channels: int) -> tuple[SeparableConvolution, SeparableConvolution]:
    """A kernel along the rows and one along the columns."""
    return (
        SeparableConvolution(in_channels, out_channels, kernel_size=(1, 5)),
        SeparableConvolution(out_channels, out_channels, kernel_size=(5, 1)),
    )
