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

"""ResNet-18 and ResNet-34 as encoders that show their stages and take ImageNet weights."""

from __future__ import annotations

import os
import re

import torch
from torch import nn

from monai_kd.networks.blocks.conv_norm import conv_norm
from monai_kd.networks.load_published import load_published

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}  # of stage 1 to 4


class BasicResNetEncoder(nn.Module):
    """
    The feature pyramid of ResNet-18 or ResNet-34 (He et al., CVPR 2016, Table 1): stem, pooling, and 2, 2, 2, 2 or
    3, 4, 6, 3 residual blocks.

    MONAI's own :py:func:`monai.networks.nets.resnet18` and ``resnet34`` compute the same, but add and activate in
    place, which would rewrite a feature after it was captured; here nothing is written in place. Convolutions start
    from He's normal initialisation by fan-out, as in torchvision.

    Args:
        in_channels: channels of the image; 3 for ImageNet weights.
        depth: 18 or 34.

    Raises:
        ValueError: when ``depth`` is another.

    Example::

        >>> import torch
        >>> [feature.shape[1:] for feature in BasicResNetEncoder()(torch.zeros(1, 3, 64, 64))]
        [torch.Size([64, 16, 16]), torch.Size([128, 8, 8]), torch.Size([256, 4, 4]), torch.Size([512, 2, 2])]
    """

    def __init__(self, in_channels: int = 3, depth: int = 34) -> None:
        super().__init__()
        if depth not in BLOCKS:
            raise ValueError(f"`depth` must be one of {', '.join(map(str, BLOCKS))}, but got {depth}.")
        self.depth = depth
        blocks1, blocks2, blocks3, blocks4 = BLOCKS[depth]
        self.stem = conv_norm(in_channels, 64, kernel_size=7, stride=2, act=nn.ReLU())  # 64, 1/2
        self.pool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.stage1 = _stage(64, 64, blocks1, stride=1)  # 64, 1/4
        self.stage2 = _stage(64, 128, blocks2, stride=2)  # 128, 1/8
        self.stage3 = _stage(128, 256, blocks3, stride=2)  # 256, 1/16
        self.stage4 = _stage(256, 512, blocks4, stride=2)  # 512, 1/32
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """
        Args:
            image: (B, in_channels, H, W).

        Returns:
            The outputs of stage 1 to 4, at 1/4 to 1/32 of the size.
        """
        feature1 = self.stage1(self.pool(self.stem(image)))
        feature2 = self.stage2(feature1)
        feature3 = self.stage3(feature2)
        return feature1, feature2, feature3, self.stage4(feature3)

    def load_imagenet(self, path: str | os.PathLike[str]) -> None:
        """
        Loads a ``resnet18`` or ``resnet34`` state dict as torchvision saves it (``conv1.weight``, ``bn1.*``,
        ``layer1.0.*``, ...); the classifier ``fc.*`` is left out.

        Args:
            path: a local ``.pth`` file, read with ``weights_only=True``.

        Raises:
            FileNotFoundError: when there is no such file.
            ValueError: when the file holds no state dict, or one whose names or shapes are not those of this depth.
        """
        load_published(self, path, _from_torchvision, "encoder_weights", f"torchvision's resnet{self.depth}")


class _ResidualBlock(nn.Module):
    """Two convolutions of kernel 3 and the identity; submodules are named as in torchvision."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, kernel_size=3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU()
        self.downsample = (
            nn.Identity() if stride == 1 else conv_norm(in_channels, out_channels, kernel_size=1, stride=stride)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        residual = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(residual + self.downsample(x))


def _stage(in_channels: int, out_channels: int, blocks: int, stride: int) -> nn.Sequential:
    first = _ResidualBlock(in_channels, out_channels, stride)
    return nn.Sequential(first, *(_ResidualBlock(out_channels, out_channels, stride=1) for _ in range(blocks - 1)))


def _from_torchvision(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {_renamed(name): value for name, value in weights.items() if not name.startswith("fc.")}


def _renamed(name: str) -> str:
    name = re.sub(r"^conv1\.", "stem.0.", name)
    name = re.sub(r"^bn1\.", "stem.1.", name)
    return re.sub(r"^layer(\d)\.", r"stage\1.", name)
