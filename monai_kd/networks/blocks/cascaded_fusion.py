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

"""Polyp-PVT's cascaded fusion module: deep maps gate the shallower ones."""

from __future__ import annotations

from functools import partial

import torch
from monai.networks.blocks import Convolution
from torch import nn
from torch.nn import functional as F


class CascadedFusion(nn.Module):
    r"""
    Fuses three maps of a pyramid from the deepest to the shallowest: each multiplies the next one as a gate, and is
    also carried on beside it.

    .. math::

        m' = M\big[\,g_1(d^\uparrow) \odot m,\; c_1(d^\uparrow)\,\big], \qquad
        y = R\big(S\big[\,g_2(d^{\uparrow\uparrow}) \odot g_3(m^\uparrow) \odot s,\; c_2(m'^\uparrow)\,\big]\big)

    with :math:`d, m, s` the deep, middle and shallow map, :math:`\uparrow` bilinear doubling with
    ``align_corners=True``, brackets for concatenation, and every letter a convolution of kernel 3 with batch
    normalisation. The released code builds a ReLU behind each and never calls it; neither does this.

    Dong et al., Polyp-PVT, CAAI Artificial Intelligence Research 2023 (arXiv:2108.06932), CFM.

    Args:
        channels: channels of each map.

    Example::

        >>> import torch
        >>> maps = [torch.zeros(1, 8, size, size) for size in (2, 4, 8)]
        >>> CascadedFusion(8)(*maps).shape
        torch.Size([1, 8, 8, 8])
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        conv = partial(Convolution, 2, kernel_size=3, bias=False, act=None, norm="batch")
        self.gate_deep_middle = conv(channels, channels)
        self.gate_deep_shallow = conv(channels, channels)
        self.gate_middle_shallow = conv(channels, channels)
        self.carry_deep = conv(channels, channels)
        self.carry_middle = conv(2 * channels, 2 * channels)
        self.merge_middle = conv(2 * channels, 2 * channels)
        self.merge_shallow = conv(3 * channels, 3 * channels)
        self.reduce = conv(3 * channels, channels)

    def forward(self, deep: torch.Tensor, middle: torch.Tensor, shallow: torch.Tensor) -> torch.Tensor:
        """
        Args:
            deep: (B, C, H, W).
            middle: (B, C, 2 H, 2 W).
            shallow: (B, C, 4 H, 4 W).

        Returns:
            (B, C, 4 H, 4 W).
        """
        deep = _doubled(deep)
        fused = self.gate_deep_middle(deep) * middle
        fused = self.merge_middle(torch.cat([fused, self.carry_deep(deep)], dim=1))  # (B, 2 C, 2 H, 2 W)
        gate = self.gate_deep_shallow(_doubled(deep)) * self.gate_middle_shallow(_doubled(middle))
        carried = self.carry_middle(_doubled(fused))  # (B, 2 C, 4 H, 4 W)
        return self.reduce(self.merge_shallow(torch.cat([gate * shallow, carried], dim=1)))


def _doubled(x: torch.Tensor) -> torch.Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=True)
