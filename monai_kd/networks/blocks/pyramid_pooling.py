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
"""Pyramid pooling: what a whole image, and its quarters and smaller parts, hold on average."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

from monai_kd.networks.blocks.pooled_batch_norm import PooledBatchNorm


class PyramidPooling(nn.Module):
    """
    Joins a feature with its averages over 1 x 1, 2 x 2, 3 x 3 and 6 x 6 parts of the image.

    Zhao et al., PSPNet, CVPR 2017, arXiv:1612.01105, Fig. 3 (c) and Sec. 3.2. Each average is reduced by a convolution
    of kernel 1, batch normalisation and ReLU, and brought back to the size of the feature (bilinear, corners aligned).

    Parts are those of :py:class:`torch.nn.AdaptiveAvgPool2d`, which may overlap by one row or column. They are computed
    as two products with a matrix, equal in value: that module is refused by the ONNX exporter of TorchScript, that of
    ``torch.export`` freezes the parts of one size and is wrong at others without a word, and its gradient is not
    deterministic on CUDA. A training batch of one image works (:py:class:`PooledBatchNorm`).

    Args:
        in_channels: channels of the feature, a multiple of the number of ``bins``.
        bins: parts along H and along W, one number for each level of the pyramid.

    Raises:
        ValueError: when a number of ``bins`` is not positive, or they do not divide ``in_channels``.

    Example::

        >>> import torch
        >>> PyramidPooling(8).eval()(torch.zeros(2, 8, 12, 16)).shape
        torch.Size([2, 16, 12, 16])
    """

    def __init__(self, in_channels: int, bins: Sequence[int] = (1, 2, 3, 6)) -> None:
        super().__init__()
        if not bins or min(bins) < 1:
            raise ValueError(f"`bins` must be numbers of 1 or more, but got {bins}.")
        if in_channels < 1 or in_channels % len(bins):
            raise ValueError(f"`in_channels` must be a multiple of the {len(bins)} `bins`, but got {in_channels}.")
        self.branches = nn.ModuleList(_branch(in_channels, in_channels // len(bins), number) for number in bins)

    def forward(self, feature: torch.Tensor) -> torch.Tensor:
        """
        Args:
            feature: (B, in_channels, H, W), H and W 1 or more.

        Returns:
            The feature and then its averages, (B, 2 * in_channels, H, W).
        """
        joined = [feature]
        for branch in self.branches:
            joined.append(F.interpolate(branch(feature), size=feature.shape[2:], mode="bilinear", align_corners=True))
        return torch.cat(joined, dim=1)


class _PartAverage(nn.Module):
    """The mean over each of ``bins`` x ``bins`` parts."""

    def __init__(self, bins: int) -> None:
        super().__init__()
        self.bins = bins

    def forward(self, feature: torch.Tensor) -> torch.Tensor:
        rows = _parts(feature.shape[2], self.bins, feature)
        columns = _parts(feature.shape[3], self.bins, feature)
        return rows @ (feature @ columns.transpose(0, 1))  # (B, C, bins, bins)


def _parts(size: int, bins: int, like: torch.Tensor) -> torch.Tensor:
    """(bins, size): 1 / n at the n places of each part, from floor(i * size / bins) to ceil((i + 1) * size / bins)."""
    place = torch.arange(size, device=like.device)
    part = torch.arange(bins, device=like.device).unsqueeze(1)
    first = torch.div(part * size, bins, rounding_mode="floor")
    end = torch.div((part + 1) * size + (bins - 1), bins, rounding_mode="floor")
    inside = (place >= first) & (place < end)
    return inside.to(like.dtype) / (end - first).to(like.dtype)


def _branch(in_channels: int, out_channels: int, bins: int) -> nn.Sequential:
    return nn.Sequential(
        _PartAverage(bins),
        nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=False),
        PooledBatchNorm(out_channels) if bins == 1 else nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )
