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
"""PSPNet with a dilated ResNet-50: a teacher of EMKD."""

from __future__ import annotations

import os

import torch
from monai.networks.blocks import Convolution
from torch import nn
from torch.nn import functional as F

from monai_kd.networks.blocks import ImageInput, PyramidPooling, ResNet50Encoder
from monai_kd.networks.load_published import load_encoder


class PSPNet(nn.Module):
    """
    PSPNet for slices: a ResNet-50 that keeps 1/8 of the size, averages over parts of the image joined to its last map,
    and logits upsampled by 8.

    Zhao et al., Pyramid Scene Parsing Network, CVPR 2017, arXiv:1612.01105, as the released code of EMKD builds it (Qin
    et al., IEEE TMI 2021, teacher T2 of Table I, also in Table II). The auxiliary loss of PSPNet's paper (Sec. 3.3) is
    off in that code and not offered here. Differences of ours from that code:

    - the two features of EMKD are captured by path instead of being returned (below);
    - nothing is written in place, and a training batch of one image works (:py:class:`PyramidPooling`);
    - an image of three channels is taken as it is; there it is always repeated;
    - :py:class:`torch.nn.AdaptiveAvgPool2d` is computed as a product with a matrix, equal in value, which also exports.

    A single channel is repeated to three, as there, so that ImageNet weights fit and the size is the same with 1 and 3
    channels: 46,706,626 parameters for 2 classes (paper: 46.7 M). One slice of 384 x 384 costs 207.30 GFLOPs, counted
    as 2 x multiply-accumulate by torch; the paper reports 207.18, as does the counter for the released code, whose
    pooling it does not see.

    Any size of image is taken. The logits have it; features at 1/2 and 1/8 are rounded up.

    For distillation (EMKD, low and high), for an input of 384 x 384:

    ==================  ===============  ================================================
    path                shape            what
    ==================  ===============  ================================================
    ``encoder.stem``    64 x 192 x 192   first map at 1/2, after ReLU
    ``encoder.stage4``  2048 x 48 x 48   last map of the encoder, at 1/8, after ReLU
    ==================  ===============  ================================================

    Args:
        in_channels: channels of the image; 1 is repeated to 3, any other number enters the first convolution as it is.
        out_channels: classes, background included.
        encoder_weights: local file with ``resnet50`` weights, for 1 or 3 ``in_channels``: CSAIL's with ``deep_stem``,
            torchvision's without; None starts at random. See :py:meth:`ResNet50Encoder.load_imagenet`.
        deep_stem: begin with three convolutions of kernel 3, as PSPNet and EMKD do; False begins with the one of kernel
            7 of He et al., which takes torchvision's weights and has 46,582,850 parameters.

    Raises:
        FileNotFoundError: when ``encoder_weights`` is no file.
        ValueError: when an argument is not positive, ``encoder_weights`` does not fit, or the image is not
            (B, in_channels, H, W).

    Example::

        >>> import torch
        >>> PSPNet(in_channels=1, out_channels=2).eval()(torch.zeros(1, 1, 50, 70)).shape
        torch.Size([1, 2, 50, 70])
    """

    def __init__(
        self,
        in_channels: int = 1,
        out_channels: int = 2,
        encoder_weights: str | os.PathLike[str] | None = None,
        deep_stem: bool = True,
    ) -> None:
        super().__init__()
        if out_channels < 1:
            raise ValueError(f"`out_channels` must be 1 or more, but got {out_channels}.")
        self.input = ImageInput(in_channels, divisor=1)
        self.encoder = ResNet50Encoder(self.input.out_channels, deep_stem)  # 2048, 1/8
        self.pyramid = PyramidPooling(2048, bins=(1, 2, 3, 6))  # 4096, 1/8
        self.fuse = Convolution(
            2,
            4096,
            512,
            kernel_size=3,
            bias=False,
            norm="batch",
            act="relu",
            dropout=0.1,
            dropout_dim=2,
            adn_ordering="NAD",
        )
        self.head = nn.Conv2d(512, out_channels, kernel_size=1)
        for part in (self.pyramid, self.fuse, self.head):
            for module in part.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        load_encoder(self.encoder.load_imagenet, encoder_weights, in_channels)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """
        Args:
            image: (B, in_channels, H, W).

        Returns:
            Logits (B, out_channels, H, W).
        """
        feature = self.encoder(self.input(image))[3]  # (B, 2048, H / 8, W / 8)
        logits = self.head(self.fuse(self.pyramid(feature)))
        return F.interpolate(logits, size=image.shape[2:], mode="bilinear", align_corners=True)
