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

"""ESPNet: the smallest student of EMKD."""

from __future__ import annotations

import torch
from monai.networks.blocks import ADN, Convolution
from torch import nn

from monai_kd.networks.blocks import EfficientSpatialPyramid, ImageInput

NORM = ("batch", {"eps": 1e-3})


class ESPNet(nn.Module):
    """
    ESPNet for slices: an encoder to 1/8 of spatial pyramids of dilated convolutions, to which the pooled image is given
    anew at each scale, and a decoder that works on as many channels as there are classes.

    Mehta et al., ESPNet, arXiv:1803.06815, Fig. 4, as the released code of EMKD builds it (Qin et al., IEEE TMI 2021,
    Table II): 2 modules at 1/4 and 3 at 1/8. A module needs five channels, so that the one of the decoder has
    ``max(out_channels, 5)``; the code of EMKD, made for two classes, has 5. Differences of ours from that code:

    - the two features of EMKD are captured by path instead of being returned (below);
    - an image of three channels is taken as it is; there it is always repeated.

    A single channel is repeated to three, as there: 183,725 parameters for 2 classes (paper: 0.183 M). One slice of
    384 x 384 costs 1.23 GFLOPs, counted as 2 x multiply-accumulate by torch (paper: 1.23). It was published as
    ESPNet-C, the encoder, trained first, and the decoder added after; here both start at random and train together.

    For distillation (EMKD, low and high), for an input of 384 x 384:

    ================  ===============  ==================================================================
    path              shape            what
    ================  ===============  ==================================================================
    ``encoder.stem``  16 x 192 x 192   first map at 1/2, after batch normalisation and PReLU
    ``encoder.adn3``  256 x 48 x 48    last map of the encoder, at 1/8, after batch normalisation and PReLU
    ================  ===============  ==================================================================

    Args:
        in_channels: channels of the image; 1 is repeated to 3, any other number enters the stem as it is.
        out_channels: classes, background included.

    Raises:
        ValueError: when an argument is not positive, or the image is not (B, in_channels, H, W) with H and W divisible
            by 8.

    Example::

        >>> import torch
        >>> ESPNet(in_channels=1, out_channels=2).eval()(torch.zeros(1, 1, 64, 64)).shape
        torch.Size([1, 2, 64, 64])
    """

    def __init__(self, in_channels: int = 1, out_channels: int = 2) -> None:
        super().__init__()
        if out_channels < 1:
            raise ValueError(f"`out_channels` must be 1 or more, but got {out_channels}.")
        self.input = ImageInput(in_channels, divisor=8)
        channels = self.input.out_channels
        self.encoder = _Encoder(channels)  # 16 + channels at 1/2, 128 + channels at 1/4, 256 at 1/8
        self.score3 = Convolution(2, 256, out_channels, kernel_size=1, bias=False, norm=NORM, act=None)  # 1/8
        self.up3 = _doubled(out_channels, out_channels)  # 1/4
        self.score2 = Convolution(2, 128 + channels, out_channels, kernel_size=1, bias=False, conv_only=True)
        width = max(out_channels, 5)
        self.merge2 = nn.Sequential(_adn(2 * out_channels), EfficientSpatialPyramid(2 * out_channels, width))
        self.up2 = nn.Sequential(_doubled(width, out_channels), _adn(out_channels))  # 1/2
        self.merge1 = _conv(16 + channels + out_channels, out_channels)
        self.head = _doubled(out_channels, out_channels)  # 1/1

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """
        Args:
            image: (B, in_channels, H, W), H and W divisible by 8.

        Returns:
            Logits (B, out_channels, H, W).
        """
        feature1, feature2, feature3 = self.encoder(self.input(image))
        x = self.up3(self.score3(feature3))  # (B, out_channels, H / 4, W / 4)
        x = self.up2(self.merge2(torch.cat([self.score2(feature2), x], dim=1)))  # (B, out_channels, H / 2, W / 2)
        return self.head(self.merge1(torch.cat([x, feature1], dim=1)))


class _Encoder(nn.Module):
    """ESPNet-C without its classifier: three scales, each joined with what entered it and with the pooled image."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(kernel_size=3, stride=2, padding=1)
        self.stem = _conv(in_channels, 16, strides=2)  # 1/2
        self.adn1 = _adn(16 + in_channels)
        self.down2 = EfficientSpatialPyramid(16 + in_channels, 64, stride=2)  # 1/4
        self.stage2 = nn.Sequential(*(EfficientSpatialPyramid(64, 64) for _ in range(2)))
        self.adn2 = _adn(128 + in_channels)
        self.down3 = EfficientSpatialPyramid(128 + in_channels, 128, stride=2)  # 1/8
        self.stage3 = nn.Sequential(*(EfficientSpatialPyramid(128, 128) for _ in range(3)))
        self.adn3 = _adn(256)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        image1 = self.pool(image)
        feature1 = self.adn1(torch.cat([self.stem(image), image1], dim=1))
        x = self.down2(feature1)
        feature2 = self.adn2(torch.cat([self.stage2(x), x, self.pool(image1)], dim=1))
        x = self.down3(feature2)
        return feature1, feature2, self.adn3(torch.cat([x, self.stage3(x)], dim=1))


def _conv(in_channels: int, out_channels: int, strides: int = 1) -> Convolution:
    act = ("prelu", {"num_parameters": out_channels})
    return Convolution(2, in_channels, out_channels, strides, kernel_size=3, bias=False, norm=NORM, act=act)


def _adn(channels: int) -> ADN:
    return ADN(in_channels=channels, act=("prelu", {"num_parameters": channels}), norm=NORM, norm_dim=2)


def _doubled(in_channels: int, out_channels: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(in_channels, out_channels, kernel_size=2, stride=2, bias=False)
