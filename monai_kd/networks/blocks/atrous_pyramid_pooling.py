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
"""Atrous spatial pyramid pooling: one map seen at several dilations and as a whole."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.networks.blocks import Convolution
from torch import nn

from monai_kd.networks.blocks.pooled_batch_norm import PooledBatchNorm


class AtrousPyramidPooling(nn.Module):
    """
    ASPP: a convolution of kernel 1, three dilated ones of kernel 3, and the mean of the image, joined and reduced.

    Chen et al., DeepLabV3, arXiv:1706.05587, Sec. 3.3 and Fig. 5; the same in DeepLabV3+ (arXiv:1802.02611). Each of
    the five has batch normalisation and ReLU. MONAI's :py:class:`monai.networks.blocks.SimpleASPP` has no mean of the
    image and normalises only once. A training batch of one image works (:py:class:`PooledBatchNorm`).

    Args:
        in_channels: channels of the feature.
        out_channels: channels of each of the five, and of what leaves.
        dilations: of the dilated convolutions; 12, 24, 36 is the paper's choice for a map at 1/8 of the size.
        dropout: probability with which a value of the result is dropped in training.

    Example::

        >>> import torch
        >>> AtrousPyramidPooling(16, 8, dilations=(2, 4)).eval()(torch.zeros(2, 16, 12, 16)).shape
        torch.Size([2, 8, 12, 16])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int = 256,
        dilations: Sequence[int] = (12, 24, 36),
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.branches = nn.ModuleList([_unit(in_channels, out_channels, kernel_size=1)])
        self.branches.extend(_unit(in_channels, out_channels, dilation=dilation) for dilation in dilations)
        self.whole = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=False),
            PooledBatchNorm(out_channels),
            nn.ReLU(),
        )
        self.reduce = _unit((len(dilations) + 2) * out_channels, out_channels, kernel_size=1, dropout=dropout)

    def forward(self, feature: torch.Tensor) -> torch.Tensor:
        """
        Args:
            feature: (B, in_channels, H, W).

        Returns:
            (B, out_channels, H, W).
        """
        joined = [branch(feature) for branch in self.branches]
        joined.append(self.whole(feature).expand(-1, -1, feature.shape[2], feature.shape[3]))
        return self.reduce(torch.cat(joined, dim=1))


def _unit(
    in_channels: int, out_channels: int, kernel_size: int = 3, dilation: int = 1, dropout: float | None = None
) -> Convolution:
    return Convolution(
        2,
        in_channels,
        out_channels,
        kernel_size=kernel_size,
        dilation=dilation,
        bias=False,
        norm="batch",
        act="relu",
        dropout=dropout,
        adn_ordering="NAD",
    )
