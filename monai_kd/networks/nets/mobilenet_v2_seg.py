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

"""MobileNetV2 for segmentation: a student of EMKD."""

from __future__ import annotations

import os

import torch
from torch import nn
from torch.nn import functional as F

from monai_kd.networks.blocks import ImageInput, MobileNetV2Encoder
from monai_kd.networks.load_published import load_encoder


class MobileNetV2Seg(nn.Module):
    """
    MobileNetV2 for slices: the classification network with its strides cut to 1/8, a convolution of kernel 1 to the
    classes, and bilinear upsampling by 8.

    Sandler et al., MobileNetV2, arXiv:1801.04381, as the released code of EMKD builds it (Qin et al., IEEE TMI 2021,
    student of Tables I and II); for the strides see :py:class:`MobileNetV2Encoder`. Differences of ours from that code:

    - the classifier of images is not built. There its 2,562 parameters get no gradient, which DistributedDataParallel
      refuses;
    - the two features of EMKD are captured by path instead of being returned (below);
    - nothing is written in place, and ImageNet weights may be given; there it starts at random;
    - the last convolution starts as torch has it. There it starts from He's normal initialisation by fan-out, which for
      2 classes gives logits with a standard deviation of 15 to 23 (measured, 3 seeds), here 0.2 to 0.4;
    - an image of three channels is taken as it is; there it is always repeated.

    A single channel is repeated to three, as there: 2,226,434 parameters for 2 classes, in the released code 2,228,996
    (paper: 2.2 M). One slice of 384 x 384 costs 19.14 GFLOPs, counted as 2 x multiply-accumulate by torch (paper:
    19.14), nine times those of ENet: 1,280 channels at 1/8 are many.

    Images of any size are taken. The logits are brought to it with ``align_corners=True``, as in the released code: the
    outer pixels of the map at 1/8 come to lie on the border of the image.

    For distillation (EMKD, low and high), for an input of 384 x 384:

    ================  ===============  ==============================================
    path              shape            what
    ================  ===============  ==============================================
    ``encoder.stem``  32 x 192 x 192   first map at 1/2, after ReLU6
    ``encoder.last``  1280 x 48 x 48   last map of the encoder, at 1/8, after ReLU6
    ================  ===============  ==============================================

    Args:
        in_channels: channels of the image; 1 is repeated to 3, any other number enters the first convolution as it is.
        out_channels: classes, background included.
        encoder_weights: local file with torchvision's ``mobilenet_v2`` weights, for 1 or 3 ``in_channels``; None starts
            at random. See :py:meth:`MobileNetV2Encoder.load_imagenet`.

    Raises:
        FileNotFoundError: when ``encoder_weights`` is no file.
        ValueError: when an argument is not positive, ``encoder_weights`` does not fit, or the image is not
            (B, in_channels, H, W).

    Example::

        >>> import torch
        >>> MobileNetV2Seg(in_channels=1, out_channels=2).eval()(torch.zeros(1, 1, 50, 70)).shape
        torch.Size([1, 2, 50, 70])
    """

    def __init__(
        self, in_channels: int = 1, out_channels: int = 2, encoder_weights: str | os.PathLike[str] | None = None
    ) -> None:
        super().__init__()
        if out_channels < 1:
            raise ValueError(f"`out_channels` must be 1 or more, but got {out_channels}.")
        self.input = ImageInput(in_channels, divisor=1)
        self.encoder = MobileNetV2Encoder(self.input.out_channels)  # 1280, 1/8
        self.head = nn.Conv2d(1280, out_channels, kernel_size=1)
        load_encoder(self.encoder.load_imagenet, encoder_weights, in_channels)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """
        Args:
            image: (B, in_channels, H, W).

        Returns:
            Logits (B, out_channels, H, W).
        """
        image = self.input(image)
        logits = self.head(self.encoder(image))  # (B, out_channels, H / 8, W / 8)
        return F.interpolate(logits, size=image.shape[2:], mode="bilinear", align_corners=True)
