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

"""RA-UNet with a ResNet-34 encoder: the teacher of EMKD."""

from __future__ import annotations

import os

import torch
from torch import nn

from monai_kd.networks.blocks import AugmentedAttention, BasicResNetEncoder, ImageInput, LinkUpsampling
from monai_kd.networks.load_published import load_encoder


class RAUNet(nn.Module):
    """
    RA-UNet for slices: a ResNet-34 encoder, LinkNet's decoder, and attention by the whole image on three skips.

    Qin et al., Efficient Medical Image Segmentation Based on Knowledge Distillation, IEEE TMI 2021, teacher T1 of
    Table I, also in Table II. The paper cites Jin et al., a 3D network of the same name; its released code builds
    RAUNet of Ni et al. (ICONIP 2019, arXiv:1909.10360), and that is what stands here. Differences from the released
    code:

    - logits are returned, there ``log_softmax`` of them. Losses that apply a softmax see no difference:
      ``softmax((z - c) / temperature)`` does not depend on ``c``;
    - the two features of EMKD are captured by path instead of being returned (below);
    - nothing is written in place, and a training batch of one image works (:py:class:`AugmentedAttention`);
    - the encoder starts at random unless ``encoder_weights`` is given; there ImageNet weights are downloaded.

    A single channel is repeated to three, as there, so that ImageNet weights fit and the size is the same with 1 and 3
    channels: 22,143,394 parameters for 2 classes (paper: 22.1 M). One slice of 384 x 384 costs 26.46 GFLOPs, counted as
    2 x multiply-accumulate by torch; the paper reports 24.81, the same counter gives 26.46 for the released code.

    For distillation (EMKD, low and high), for an input of 384 x 384:

    ==================  ===============  ==========================================
    path                shape            what
    ==================  ===============  ==========================================
    ``encoder.stem``    64 x 192 x 192   first map at 1/2, after ReLU
    ``encoder.stage2``  128 x 48 x 48    last map of the encoder at 1/8, after ReLU
    ==================  ===============  ==========================================

    Args:
        in_channels: channels of the image; 1 is repeated to 3, any other number enters the first convolution as it is.
        out_channels: classes, background included.
        encoder_weights: local file with torchvision's ``resnet34`` weights, for 1 or 3 ``in_channels``; None starts at
            random. See :py:meth:`BasicResNetEncoder.load_imagenet`.

    Raises:
        FileNotFoundError: when ``encoder_weights`` is no file.
        ValueError: when an argument is not positive, ``encoder_weights`` does not fit, or the image is not
            (B, in_channels, H, W) with H and W divisible by 32.

    Example::

        >>> import torch
        >>> RAUNet(in_channels=1, out_channels=2).eval()(torch.zeros(1, 1, 64, 64)).shape
        torch.Size([1, 2, 64, 64])
    """

    def __init__(
        self, in_channels: int = 1, out_channels: int = 2, encoder_weights: str | os.PathLike[str] | None = None
    ) -> None:
        super().__init__()
        if out_channels < 1:
            raise ValueError(f"`out_channels` must be 1 or more, but got {out_channels}.")
        self.input = ImageInput(in_channels, divisor=32)
        self.encoder = BasicResNetEncoder(self.input.out_channels, depth=34)  # 64 to 512 at 1/4 to 1/32
        self.up4 = LinkUpsampling(512, 256)  # 1/16
        self.attention3 = AugmentedAttention(256)
        self.up3 = LinkUpsampling(256, 128)  # 1/8
        self.attention2 = AugmentedAttention(128)
        self.up2 = LinkUpsampling(128, 64)  # 1/4
        self.attention1 = AugmentedAttention(64)
        self.up1 = LinkUpsampling(64, 64)  # 1/2
        self.head = nn.Sequential(
            nn.ConvTranspose2d(64, 32, kernel_size=3, stride=2),  # H + 1
            nn.ReLU(),
            nn.Conv2d(32, 32, kernel_size=3),  # H - 1
            nn.ReLU(),
            nn.Conv2d(32, out_channels, kernel_size=2, padding=1),  # H
        )
        load_encoder(self.encoder.load_imagenet, encoder_weights, in_channels)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """
        Args:
            image: (B, in_channels, H, W), H and W divisible by 32.

        Returns:
            Logits (B, out_channels, H, W).
        """
        feature1, feature2, feature3, feature4 = self.encoder(self.input(image))
        x = self.attention3(self.up4(feature4), feature3)  # (B, 256, H / 16, W / 16)
        x = self.attention2(self.up3(x), feature2)  # (B, 128, H / 8, W / 8)
        x = self.attention1(self.up2(x), feature1)  # (B, 64, H / 4, W / 4)
        return self.head(self.up1(x))
