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
"""DeepLabV3+ with an aligned Xception: a large network that EMKD compares with."""

from __future__ import annotations

import torch
from monai.networks.blocks import Convolution
from torch import nn
from torch.nn import functional as F

from monai_kd.networks.blocks import AtrousPyramidPooling, ImageInput, XceptionEncoder


class DeepLabV3Plus(nn.Module):
    """
    DeepLabV3+ for slices: an Xception-65 that keeps 1/8 of the size, its last map seen at several dilations, and a
    decoder that adds detail from 1/4.

    Chen et al., Encoder-Decoder with Atrous Separable Convolution, ECCV 2018, arXiv:1802.02611, as the released code of
    EMKD builds it (Qin et al., IEEE TMI 2021, Table II). Differences of that code from the paper of DeepLabV3+: a
    convolution of kernel 3 reduces the detail to 48 channels (there kernel 1), the dilated convolutions and the decoder
    are not separable, and those of the encoder (:py:class:`XceptionEncoder`). Differences of ours from that code:

    - the classifier of Xception is not built. There it is built, and counted, but never called: its 2,049,000
      parameters get no gradient, which DistributedDataParallel refuses;
    - the two features of EMKD are captured by path instead of being returned (below);
    - nothing is written in place, and a training batch of one image works (:py:class:`AtrousPyramidPooling`).

    54,746,962 parameters for one channel and 2 classes; with the unused classifier 56,795,962 (paper: 56.8 M). A single
    channel enters as it is, as there. One slice of 384 x 384 costs 272.48 GFLOPs, counted as
    2 x multiply-accumulate by torch, as does the released code; the paper reports 272.48.

    Any size of image is taken. The logits have it; features at 1/2, 1/4 and 1/8 are rounded up.

    For distillation (EMKD, low and high), for an input of 384 x 384:

    ================  ===============  ==================================================
    path              shape            what
    ================  ===============  ==================================================
    ``encoder.stem``  32 x 192 x 192   first map at 1/2, after ReLU
    ``encoder.exit``  2048 x 48 x 48   last map of the encoder, at 1/8, after ReLU
    ================  ===============  ==================================================

    Args:
        in_channels: channels of the image; they enter the first convolution as they are.
        out_channels: classes, background included.

    Raises:
        ValueError: when an argument is not positive, or the image is not (B, in_channels, H, W).

    Example::

        >>> import torch
        >>> DeepLabV3Plus(in_channels=1, out_channels=2).eval()(torch.zeros(1, 1, 50, 70)).shape
        torch.Size([1, 2, 50, 70])
    """

    def __init__(self, in_channels: int = 1, out_channels: int = 2) -> None:
        super().__init__()
        if out_channels < 1:
            raise ValueError(f"`out_channels` must be 1 or more, but got {out_channels}.")
        self.input = ImageInput(in_channels, divisor=1, repeat=False)
        self.encoder = XceptionEncoder(in_channels)  # 128 at 1/4, 2048 at 1/8
        self.detail = _unit(128, 48)
        self.context = AtrousPyramidPooling(2048, 256, dilations=(12, 24, 36), dropout=0.5)
        self.decoder = nn.Sequential(
            _unit(48 + 256, 256, dropout=0.5),
            _unit(256, 256, dropout=0.1),
            nn.Conv2d(256, out_channels, kernel_size=1),
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """
        Args:
            image: (B, in_channels, H, W).

        Returns:
            Logits (B, out_channels, H, W).
        """
        feature1, feature2 = self.encoder(self.input(image))
        detail = self.detail(feature1)  # (B, 48, H / 4, W / 4)
        context = self.context(feature2)  # (B, 256, H / 8, W / 8)
        context = F.interpolate(context, size=detail.shape[2:], mode="bilinear", align_corners=True)
        logits = self.decoder(torch.cat([context, detail], dim=1))
        return F.interpolate(logits, size=image.shape[2:], mode="bilinear", align_corners=True)


def _unit(in_channels: int, out_channels: int, dropout: float | None = None) -> Convolution:
    return Convolution(
        2,
        in_channels,
        out_channels,
        kernel_size=3,
        bias=False,
        norm="batch",
        act="relu",
        dropout=dropout,
        adn_ordering="NAD",
    )
