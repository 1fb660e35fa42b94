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
"""ResNet-50, dilated to keep 1/8 of the size, as an encoder that shows its stages and takes ImageNet weights."""

from __future__ import annotations

import os
import re

import torch
from torch import nn

from monai_kd.networks.blocks.conv_norm import conv_norm
from monai_kd.networks.load_published import load_published


class ResNet50Encoder(nn.Module):
    """
    The feature pyramid of ResNet-50 (He et al., CVPR 2016, Table 1), dilated: stem, pooling, and 3, 4, 6, 3 bottlenecks
    of which the last two stages dilate by 2 and 4 instead of halving the map.

    Where a stage would have had a stride, its first block keeps the dilation of the stage before. This is the dilated
    ResNet of PSPNet (Zhao et al., CVPR 2017, arXiv:1612.01105, Sec. 3.2) and what
    ``replace_stride_with_dilation=[False, True, True]`` makes of torchvision's. The stride of stage 2 is in the
    convolution of kernel 3, as in torchvision and in the released code of EMKD. Nothing is written in place, so that a
    captured feature keeps its values. Convolutions start from He's normal initialisation by fan-out.

    Args:
        in_channels: channels of the image; 3 for ImageNet weights.
        deep_stem: three convolutions of kernel 3 in the stem, and 128 channels after it, as PSPNet has them; False is
            the single convolution of kernel 7 of He et al., with 64 channels.

    Example::

        >>> import torch
        >>> [feature.shape[1:] for feature in ResNet50Encoder()(torch.zeros(1, 3, 64, 64))]
        [torch.Size([256, 16, 16]), torch.Size([512, 8, 8]), torch.Size([1024, 8, 8]), torch.Size([2048, 8, 8])]
    """

    def __init__(self, in_channels: int = 3, deep_stem: bool = True) -> None:
        super().__init__()
        self.deep_stem = deep_stem
        self.stem = conv_norm(in_channels, 64, kernel_size=3 if deep_stem else 7, stride=2, act=nn.ReLU())  # 64, 1/2
        self.deepen = (
            nn.Sequential(conv_norm(64, 64, act=nn.ReLU()), conv_norm(64, 128, act=nn.ReLU()))
            if deep_stem
            else nn.Identity()
        )
        self.pool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.stage1 = _stage(128 if deep_stem else 64, 64, blocks=3)  # 256, 1/4
        self.stage2 = _stage(256, 128, blocks=4, stride=2)  # 512, 1/8
        self.stage3 = _stage(512, 256, blocks=6, dilations=(1, 2))  # 1024, 1/8
        self.stage4 = _stage(1024, 512, blocks=3, dilations=(2, 4))  # 2048, 1/8
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """
        Args:
            image: (B, in_channels, H, W).

        Returns:
            The outputs of stage 1 to 4: the first at 1/4, the others at 1/8 of the size, rounded up.
        """
        feature1 = self.stage1(self.pool(self.deepen(self.stem(image))))
        feature2 = self.stage2(feature1)
        feature3 = self.stage3(feature2)
        return feature1, feature2, feature3, self.stage4(feature3)

    def load_imagenet(self, path: str | os.PathLike[str]) -> None:
        """
        Loads a published ``resnet50`` state dict; the classifier ``fc.*`` is left out.

        With ``deep_stem`` it is that of CSAIL's semantic-segmentation-pytorch, which the released code of EMKD takes:
        ``conv1.weight``, ``bn1.*``, ``conv2.weight``, ..., ``bn3.*``, ``layer1.0.*``, .... Without, it is
        torchvision's: ``conv1.weight``, ``bn1.*``, ``layer1.0.*``, ....

        Args:
            path: a local ``.pth`` file, read with ``weights_only=True``.

        Raises:
            FileNotFoundError: when there is no such file.
            ValueError: when the file holds no state dict, or one whose names or shapes are not those of this ResNet-50.
        """
        if self.deep_stem:
            content = (
                "the resnet50 of CSAIL's semantic-segmentation-pytorch, with three convolutions in the stem "
                "(torchvision's has one: pass `deep_stem=False`)"
            )
        else:
            content = "torchvision's resnet50, with one convolution in the stem"
        load_published(self, path, _from_published, "encoder_weights", content)


class _Bottleneck(nn.Module):
    """Convolutions of kernel 1, 3 and 1 beside the identity or a projection; submodules named as in torchvision."""

    def __init__(self, in_channels: int, waist: int, stride: int, dilation: int) -> None:
        super().__init__()
        out_channels = 4 * waist
        self.conv1 = nn.Conv2d(in_channels, waist, kernel_size=1, bias=False)
        self.bn1 = nn.BatchNorm2d(waist)
        self.conv2 = nn.Conv2d(
            waist, waist, kernel_size=3, stride=stride, padding=dilation, dilation=dilation, bias=False
        )
        self.bn2 = nn.BatchNorm2d(waist)
        self.conv3 = nn.Conv2d(waist, out_channels, kernel_size=1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.relu = nn.ReLU()
        self.downsample = (
            nn.Identity()
            if in_channels == out_channels
            else conv_norm(in_channels, out_channels, kernel_size=1, stride=stride)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        residual = self.relu(self.bn1(self.conv1(x)))
        residual = self.relu(self.bn2(self.conv2(residual)))
        return self.relu(self.bn3(self.conv3(residual)) + self.downsample(x))


def _stage(
    in_channels: int, waist: int, blocks: int, stride: int = 1, dilations: tuple[int, int] = (1, 1)
) -> nn.Sequential:
    """``dilations``: of the first block, and of the others."""
    first = _Bottleneck(in_channels, waist, stride, dilations[0])
    return nn.Sequential(first, *(_Bottleneck(4 * waist, waist, 1, dilations[1]) for _ in range(blocks - 1)))


def _from_published(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {_renamed(name): value for name, value in weights.items() if not name.startswith("fc.")}


def _renamed(name: str) -> str:
    for layer, (conv, norm) in {
        "stem": ("conv1", "bn1"),
        "deepen.0": ("conv2", "bn2"),
        "deepen.1": ("conv3", "bn3"),
    }.items():
        name = re.sub(rf"^{conv}\.", f"{layer}.0.", name)
        name = re.sub(rf"^{norm}\.", f"{layer}.1.", name)
    return re.sub(r"^layer(\d)\.", r"stage\1.", name)
