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

"""ENet: the lightest student of EMKD."""

from __future__ import annotations

import torch
from monai.networks.blocks import ADN, Convolution
from torch import nn

from monai_kd.networks.blocks import ENetBottleneck, ENetDownsampling, ENetUpsampling, ImageInput


class ENet(nn.Module):
    """
    ENet for slices: an encoder to 1/8 of bottlenecks with dilated and asymmetric convolutions, and a small decoder that
    unpools to where the encoder took its maxima.

    Paszke et al., ENet, arXiv:1606.02147, Table 1, as the released code of EMKD builds it (Qin et al., IEEE TMI 2021,
    student of Tables I and II). Differences of that code from the paper of ENet: a projection beside the pooling,
    dropout of 0.1 and PReLU everywhere (see the blocks). Differences of ours from that code:

    - all eight bottlenecks of stage 3 are used. There the fifth is built, and counted, but never called: its 17,795
      parameters get no gradient, which DistributedDataParallel refuses;
    - the two features of EMKD are captured by path instead of being returned (below);
    - unpooling is a scatter, equal in value, which also exports to ONNX (:py:func:`max_unpool`);
    - an image of three channels is taken as it is; there it is always repeated.

    A single channel is repeated to three, as there: 353,761 parameters for 2 classes (paper: 0.353 M). One slice of
    384 x 384 costs 2.13 GFLOPs, counted as 2 x multiply-accumulate by torch; the paper reports 2.03, the same counter
    gives 2.05 for the released code, and the bottleneck that it leaves out is the other 0.08.

    Where the image is constant (windowed air), the values of a pooling window differ by rounding only, so that device,
    batch size or export decide which is the maximum. Logits there then differ by more than rounding: by 2% of their
    range in one measurement, with 1e-7 elsewhere.

    For distillation (EMKD, low and high), for an input of 384 x 384:

    ==================  ===============  ======================================================
    path                shape            what
    ==================  ===============  ======================================================
    ``encoder.stem``    16 x 192 x 192   first map at 1/2, after batch normalisation and PReLU
    ``encoder.stage3``  128 x 48 x 48    last map of the encoder, at 1/8, after PReLU
    ==================  ===============  ======================================================

    Args:
        in_channels: channels of the image; 1 is repeated to 3, any other number up to 15 enters the stem as it is.
        out_channels: classes, background included.

    Raises:
        ValueError: when an argument is out of range, or the image is not (B, in_channels, H, W) with H and W divisible
            by 8.

    Example::

        >>> import torch
        >>> ENet(in_channels=1, out_channels=2).eval()(torch.zeros(1, 1, 64, 64)).shape
        torch.Size([1, 2, 64, 64])
    """

    def __init__(self, in_channels: int = 1, out_channels: int = 2) -> None:
        super().__init__()
        if out_channels < 1:
            raise ValueError(f"`out_channels` must be 1 or more, but got {out_channels}.")
        self.input = ImageInput(in_channels, divisor=8)
        self.encoder = _Encoder(self.input.out_channels)  # 128, 1/8
        self.up4 = ENetUpsampling(128, 64)  # 1/4
        self.stage4 = nn.Sequential(ENetBottleneck(64), ENetBottleneck(64))
        self.up5 = ENetUpsampling(64, 16)  # 1/2
        self.stage5 = ENetBottleneck(16)
        self.head = nn.ConvTranspose2d(16, out_channels, kernel_size=2, stride=2, bias=False)  # 1/1

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """
        Args:
            image: (B, in_channels, H, W), H and W divisible by 8.

        Returns:
            Logits (B, out_channels, H, W).
        """
        x, position1, position2 = self.encoder(self.input(image))
        x = self.stage4(self.up4(x, position2))  # (B, 64, H / 4, W / 4)
        x = self.stage5(self.up5(x, position1))  # (B, 16, H / 2, W / 2)
        return self.head(x)


class _Encoder(nn.Module):
    """Stem and stages 1 to 3 of ENet, with the positions of the two poolings that the decoder undoes."""

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.stem = _Stem(in_channels, 16)  # 16, 1/2
        self.down1 = ENetDownsampling(16, 64)  # 64, 1/4
        self.stage1 = nn.Sequential(*(ENetBottleneck(64) for _ in range(4)))
        self.down2 = ENetDownsampling(64, 128)  # 128, 1/8
        self.stage2 = _context_stage(128)
        self.stage3 = _context_stage(128)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        x, position1 = self.down1(self.stem(image))
        x, position2 = self.down2(self.stage1(x))
        return self.stage3(self.stage2(x)), position1, position2


class _Stem(nn.Module):
    """A strided convolution beside the pooled image (Fig. 2a of the paper of ENet)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        if in_channels >= out_channels:
            raise ValueError(f"`in_channels` must be below {out_channels}, but got {in_channels}.")
        self.conv = Convolution(
            2, in_channels, out_channels - in_channels, kernel_size=3, strides=2, bias=False, conv_only=True
        )
        self.pool = nn.MaxPool2d(kernel_size=2)
        self.adn = ADN(in_channels=out_channels, act="prelu", norm="batch", norm_dim=2)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.adn(torch.cat([self.conv(image), self.pool(image)], dim=1))


def _context_stage(channels: int) -> nn.Sequential:
    """Eight bottlenecks with a growing view: plain or asymmetric ones between dilations of 2, 4, 8 and 16."""
    blocks = []
    for plain, dilation in ((True, 2), (False, 4), (True, 8), (False, 16)):
        blocks += [ENetBottleneck(channels, asymmetric=not plain), ENetBottleneck(channels, dilation=dilation)]
    return nn.Sequential(*blocks)
