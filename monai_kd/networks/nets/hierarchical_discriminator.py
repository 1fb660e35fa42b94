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

"""The discriminator of HAD-Net and XP-Net."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from monai.networks.blocks import Convolution
from monai.networks.layers.factories import Conv
from monai.utils import ensure_tuple, ensure_tuple_rep
from torch import nn
from torch.nn import functional as F

from monai_kd.networks.isolated_rng import isolated_rng


class HierarchicalDiscriminator(nn.Module):
    """
    Tells a teacher's segmentation of an image from a student's, by the segmentation, the image and inner maps of the
    network at several scales, which join where its own maps have become as small (HAD-Net, Vadacchino et al., MIDL
    2021; XP-Net, EndoCV 2022, 2.2.3):

    .. math:: x_0 = [segmentation, image], \\qquad x_{i+1} = block_i([x_i, features_i]), \\qquad head(x_n).

    A block is a convolution, instance normalisation (not in the first) and LeakyReLU of slope 0.2; the head a
    convolution to one channel, a decision for each patch of the image. Features are brought to the size of
    :math:`x_i` by nearest neighbours. Building one leaves torch's random state alone.

    The defaults are the geometry of HAD-Net's released code, in two dimensions or three: four convolutions of kernel 4
    and stride 2. Where nothing else is said a feature joins where it is as large as the map, as XP-Net's four (the
    first and third block of encoder and decoder: 1/1, 1/4, 1/8 and 1/2) do before each of the four blocks; HAD-Net has
    two a block, the second half as large (``levels=(1, 1, 2, 2, 3, 3)``). XP-Net prints blocks of 32, 128, 128, 32 and
    32 channels with kernel 3 and stride 1, whose maps are never as small as its features, and says nothing of resizing:
    ``channels=(32, 128, 128, 32, 32), kernel_size=3, strides=1, levels=(1, 2, 3, 4), first_norm=True`` is that, with
    the features brought to full resolution.

    Args:
        spatial_dims: 2 or 3.
        in_channels: channels of segmentation and image together, at least 2.
        features: channels and scale of each inner map, e.g. ``[[32, 1], [128, 0.25]]``; 0.25 is a quarter of the
            image's height and width. In the order in which they will be given; empty for a discriminator without.
        channels: of the blocks.
        kernel_size: of all convolutions, at least 3.
        strides: of the blocks, one for all or one for each.
        levels: the block that each feature joins, 0 being the first; where None the one whose input is nearest to the
            feature in scale.
        first_norm: whether the first block is normalised too.

    Raises:
        TypeError: when the features of a forward pass are no list.
        ValueError: when an argument is out of range, or tensors of a forward pass do not fit it or are too small.

    Example::

        >>> import torch
        >>> discriminator = HierarchicalDiscriminator(2, 4, [[32, 1], [128, 0.25]], channels=(8, 16, 32, 64))
        >>> features = [torch.rand(1, 32, 64, 64), torch.rand(1, 128, 16, 16)]
        >>> discriminator(torch.rand(1, 1, 64, 64), torch.rand(1, 3, 64, 64), features).shape
        torch.Size([1, 1, 3, 3])
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        features: Sequence[tuple[int, float]],
        channels: Sequence[int] = (128, 256, 512, 1024),
        kernel_size: int = 4,
        strides: int | Sequence[int] = 2,
        levels: Sequence[int] | None = None,
        first_norm: bool = False,
    ) -> None:
        super().__init__()
        if spatial_dims not in (2, 3):
            raise ValueError(f"`spatial_dims` must be 2 or 3, but got {spatial_dims}.")
        if in_channels < 2 or kernel_size < 3 or not channels or min(channels) < 1:
            raise ValueError(
                "`in_channels` must be at least 2, `kernel_size` 3 and `channels` 1 in at least one block, but got "
                f"{in_channels}, {kernel_size} and {list(channels)}."
            )
        self.in_channels, self.kernel_size, self.padding = in_channels, kernel_size, (kernel_size - 1) // 2
        self.first_norm = first_norm
        self.strides = ensure_tuple_rep(strides, len(channels))
        if not all(isinstance(stride, int) and stride > 0 for stride in self.strides):
            raise ValueError(
                f"`strides` must hold a whole number from 1 for each block, alike along each axis, but got {strides}."
            )
        self.features = [self._described(feature) for feature in features]
        self.levels = self._nearest() if levels is None else ensure_tuple(levels)
        if len(self.levels) != len(self.features) or not all(level in range(len(channels)) for level in self.levels):
            raise ValueError(
                f"`levels` must hold one of the {len(channels)} blocks, from 0, for each of {len(self.features)} "
                f"features, but got {self.levels}."
            )
        joining = [sum(self.features[i][0] for i in self._at(level)) for level in range(len(channels))]
        widths = [own + more for own, more in zip((in_channels, *channels), joining)]
        with isolated_rng():
            self.blocks = nn.ModuleList(
                Convolution(
                    spatial_dims,
                    width,
                    out_channels,
                    strides=stride,
                    kernel_size=kernel_size,
                    padding=self.padding,
                    adn_ordering="NA",
                    norm="instance" if level > 0 or first_norm else None,
                    act=("leakyrelu", {"negative_slope": 0.2}),
                )
                for level, (width, out_channels, stride) in enumerate(zip(widths, channels, self.strides))
            )
            self.head = Conv[Conv.CONV, spatial_dims](channels[-1], 1, kernel_size, padding=self.padding, bias=False)

    @staticmethod
    def _described(feature: tuple[int, float]) -> tuple[int, float]:
        if len(feature) != 2 or feature[0] < 1 or not 0 < feature[1] <= 1:
            raise ValueError(
                f"`features` must hold channels (1 or more) and scale (in (0, 1]) of each map, but got {feature}."
            )
        return int(feature[0]), float(feature[1])

    def _nearest(self) -> tuple[int, ...]:
        scales = [1 / math.prod(self.strides[:level]) for level in range(len(self.strides))]
        distance = [[abs(math.log(own / scale)) for own in scales] for _, scale in self.features]
        return tuple(each.index(min(each)) for each in distance)

    def _at(self, level: int) -> list[int]:
        return [i for i, own in enumerate(self.levels) if own == level]

    def forward(
        self, segmentation: torch.Tensor, image: torch.Tensor, features: Sequence[torch.Tensor]
    ) -> torch.Tensor:
        """
        Args:
            segmentation: what the teacher or the student says of the image, (B, C, *spatial), logits or probabilities.
            image: (B, C', *spatial).
            features: inner maps of that network, (B, channels, *spatial * scale) each.

        Returns:
            decisions (B, 1, *patches), 1 being the teacher's.
        """
        self._check(segmentation, image, features)
        x = torch.cat([segmentation, image], dim=1)
        for level, block in enumerate(self.blocks):
            size = x.shape[2:]
            joining = [features[i] for i in self._at(level)]
            x = torch.cat([x, *(f if f.shape[2:] == size else F.interpolate(f, size) for f in joining)], dim=1)
            x = block(x)
        return self.head(x)

    def _check(self, segmentation: torch.Tensor, image: torch.Tensor, features: Sequence[torch.Tensor]) -> None:
        if segmentation.shape[2:] != image.shape[2:] or segmentation.shape[1] + image.shape[1] != self.in_channels:
            raise ValueError(
                f"`segmentation` and `image` must be of one size, with {self.in_channels} channels together, but got "
                f"{tuple(segmentation.shape)} and {tuple(image.shape)}."
            )
        if not isinstance(features, (list, tuple)):
            raise TypeError(f"`features` must be a list of tensors, but got {type(features).__name__}.")
        shapes = [tuple(feature.shape) for feature in features]
        expected = [(channels, *(side * scale for side in image.shape[2:])) for channels, scale in self.features]
        if len(shapes) != len(expected) or not all(self._fits(*each) for each in zip(shapes, expected)):
            wanted = [(image.shape[0], channels, *map(round, size)) for channels, *size in expected]
            raise ValueError(f"`features` must be maps of the shapes {wanted}, but got {shapes}.")
        self._check_size(image)

    @staticmethod
    def _fits(shape: tuple[int, ...], expected: tuple[float, ...]) -> bool:
        """Whether a map has the channels and, but for rounding, the size."""
        same = len(shape) == len(expected) + 1 and shape[1] == expected[0]
        return same and all(abs(own - side) < 1 for own, side in zip(shape[2:], expected[1:]))

    def _check_size(self, image: torch.Tensor) -> None:
        """Instance normalisation needs two values, and the head one."""
        size, small = list(image.shape[2:]), False
        values = [2 if self.first_norm else 1, *[2] * (len(self.strides) - 1), 1]
        for stride, needed in zip((*self.strides, 1), values):
            size = [(side + 2 * self.padding - self.kernel_size) // stride + 1 for side in size]
            small = small or min(size) < 1 or math.prod(size) < needed
        if small:
            raise ValueError(
                f"`image` must be large enough for {len(self.strides)} blocks of strides {self.strides}, but got "
                f"{tuple(image.shape[2:])}; give `channels` and `strides` for fewer blocks."
            )
