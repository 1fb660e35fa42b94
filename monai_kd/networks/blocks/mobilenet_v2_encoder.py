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

"""MobileNetV2 as an encoder that keeps 1/8 of the size and takes ImageNet weights."""

from __future__ import annotations

import os
import re

import torch
from torch import nn

from monai_kd.networks.blocks.conv_norm import conv_norm
from monai_kd.networks.blocks.inverted_residual import InvertedResidual
from monai_kd.networks.load_published import load_published

STAGES = (  # expansion, channels, blocks, stride of the first; the last is 2 for 24 and 64 channels in the paper
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 1),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class MobileNetV2Encoder(nn.Module):
    """
    MobileNetV2 of width 1 without its classifier (Sandler et al., arXiv:1801.04381, Table 2): stem, 17 inverted
    residuals, and a convolution to 1,280 channels.

    The strides are those of the released code of EMKD: the first blocks of 24 and of 64 channels keep the size, so that
    the last map has 1/8 of it, 1/32 in the paper. No dilation replaces them: the kernels behind see a half, and then a
    quarter, of the width that they see in the paper, also with its weights. The parameters are the same. Convolutions
    start from He's normal initialisation by fan-out, as there. Nothing is written in place, which would rewrite a
    feature after it was captured.

    Args:
        in_channels: channels of the image; 3 for ImageNet weights.

    Example::

        >>> import torch
        >>> MobileNetV2Encoder()(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 1280, 4, 4])
    """

    def __init__(self, in_channels: int = 3) -> None:
        super().__init__()
        self.stem = conv_norm(in_channels, 32, stride=2, act=nn.ReLU6())  # 32, 1/2
        channels, blocks = 32, []
        for expansion, out_channels, number, stride in STAGES:
            for index in range(number):
                blocks.append(InvertedResidual(channels, out_channels, stride if index == 0 else 1, expansion))
                channels = out_channels
        self.blocks = nn.Sequential(*blocks)  # 320, 1/8
        self.last = conv_norm(channels, 1280, kernel_size=1, act=nn.ReLU6())  # 1280, 1/8
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """
        Args:
            image: (B, in_channels, H, W).

        Returns:
            (B, 1280, H / 8, W / 8), rounded up.
        """
        return self.last(self.blocks(self.stem(image)))

    def load_imagenet(self, path: str | os.PathLike[str]) -> None:
        """
        Loads a ``mobilenet_v2`` state dict as torchvision saves it (``features.0.0.weight``,
        ``features.1.conv.0.0.weight``, ...); the classifier is left out.

        Args:
            path: a local ``.pth`` file, read with ``weights_only=True``.

        Raises:
            FileNotFoundError: when there is no such file.
            ValueError: when the file holds no state dict, or one whose names or shapes are not those of MobileNetV2.
        """
        load_published(self, path, _from_torchvision, "encoder_weights", "torchvision's mobilenet_v2")


def _from_torchvision(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {_renamed(name): value for name, value in weights.items() if not name.startswith("classifier.")}


def _renamed(name: str) -> str:
    name = re.sub(r"^features\.0\.", "stem.", name)
    name = re.sub(r"^features\.18\.", "last.", name)
    return re.sub(r"^features\.(\d+)\.", lambda number: f"blocks.{int(number[1]) - 1}.", name)
