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

"""ResNet-18 for segmentation: the largest student of EMKD."""

from __future__ import annotations

import os

import torch
from torch import nn
from torch.nn import functional as F

from monai_kd.networks.blocks import BasicResNetEncoder, ImageInput
from monai_kd.networks.load_published import load_encoder


class ResNet18Seg(nn.Module):
    """
    ResNet-18 for slices: the classification network up to its last map at 1/32, a convolution of kernel 1 to the
    classes, and bilinear upsampling by 32.

    He et al., Deep Residual Learning, arXiv:1512.03385, Table 1, as the released code of EMKD builds it (Qin et al.,
    IEEE TMI 2021, student of Tables I and II). Differences of ours from that code:

    - the two features of EMKD are captured by path instead of being returned (below);
    - nothing is written in place: there the ReLU behind the stem is;
    - an image of three channels is taken as it is; there it is always repeated.

    A single channel is repeated to three, as there, so that ImageNet weights fit: 11,177,538 parameters for 2 classes
    (paper: 11.2 M). One slice of 384 x 384 costs 10.66 GFLOPs, counted as 2 x multiply-accumulate by torch (paper:
    10.66).

    Images of any size are taken. The logits are brought to it with ``align_corners=True``, as in the released code: the
    outer pixels of the map at 1/32 come to lie on the border of the image. Detail finer than that map is lost.

    For distillation (EMKD, low and high), for an input of 384 x 384:

    ==================  ===============  ===========================================
    path                shape            what
    ==================  ===============  ===========================================
    ``encoder.stem``    64 x 192 x 192   first map at 1/2, after ReLU
    ``encoder.stage2``  128 x 48 x 48    last map of the encoder at 1/8, after ReLU
    ==================  ===============  ===========================================

    Args:
        in_channels: channels of the image; 1 is repeated to 3, any other number enters the first convolution as it is.
        out_channels: classes, background included.
        encoder_weights: local file with torchvision's ``resnet18`` weights, for 1 or 3 ``in_channels``; None starts at
            random. See :py:meth:`BasicResNetEncoder.load_imagenet`.

    Raises:
        FileNotFoundError: when ``encoder_weights`` is no file.
        ValueError: when an argument is not positive, ``encoder_weights`` does not fit, or the image is not
            (B, in_channels, H, W).

    Example::

        >>> import torch
        >>> ResNet18Seg(in_channels=1, out_channels=2).eval()(torch.zeros(1, 1, 50, 70)).shape
        torch.Size([1, 2, 50, 70])
    """

    def __init__(
        self, in_channels: int = 1, out_channels: int = 2, encoder_weights: str | os.PathLike[str] | None = None
    ) -> None:
        super().__init__()
        if out_channels < 1:
            raise ValueError(f"`out_channels` must be 1 or more, but got {out_channels}.")
        self.input = ImageInput(in_channels, divisor=1)
        self.encoder = BasicResNetEncoder(self.input.out_channels, depth=18)  # 512, 1/32
        self.head = nn.Conv2d(512, out_channels, kernel_size=1)
        load_encoder(self.encoder.load_imagenet, encoder_weights, in_channels)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """
        Args:
            image: (B, in_channels, H, W).

        Returns:
            Logits (B, out_channels, H, W).
        """
        image = self.input(image)
        logits = self.head(self.encoder(image)[3])  # (B, out_channels, H / 32, W / 32)
        return F.interpolate(logits, size=image.shape[2:], mode="bilinear", align_corners=True)
