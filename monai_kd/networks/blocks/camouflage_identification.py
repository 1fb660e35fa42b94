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

"""Polyp-PVT's camouflage identification module: attention over channels, then over pixels."""

from __future__ import annotations

import torch
from torch import nn


class CamouflageIdentification(nn.Module):
    r"""
    Weights the channels of a shallow map, then its pixels, each by what their mean and their maximum say.

    .. math::

        u = x \odot \sigma\big(f(\mathrm{mean}_{HW}\, x) + f(\max{}_{HW}\, x)\big), \qquad
        y = u \odot \sigma\big(h\,[\mathrm{mean}_C\, u,\; \max{}_C\, u]\big)

    with :math:`f` two layers without bias around a ReLU, and :math:`h` a convolution of kernel 7 without bias. It is
    the attention of CBAM (Woo et al., ECCV 2018).

    Dong et al., Polyp-PVT, CAAI Artificial Intelligence Research 2023 (arXiv:2108.06932), CIM.

    Args:
        channels: channels of the map, ``reduction`` or more.
        reduction: by how much the hidden layer of :math:`f` is narrower.

    Example::

        >>> import torch
        >>> CamouflageIdentification(32)(torch.zeros(1, 32, 4, 4)).shape
        torch.Size([1, 32, 4, 4])
    """

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.channel_score = nn.Sequential(
            nn.Conv2d(channels, channels // reduction, kernel_size=1, bias=False),
            nn.ReLU(),
            nn.Conv2d(channels // reduction, channels, kernel_size=1, bias=False),
        )
        self.pixel_score = nn.Conv2d(2, 1, kernel_size=7, padding=3, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """
        Args:
            x: (B, C, H, W).

        Returns:
            (B, C, H, W).
        """
        pooled = torch.stack([x.mean((2, 3)), x.amax((2, 3))], dim=2).unsqueeze(3)  # (B, C, 2, 1)
        x = x * self.channel_score(pooled).sum(2, keepdim=True).sigmoid()
        pooled = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], dim=1)  # (B, 2, H, W)
        return x * self.pixel_score(pooled).sigmoid()
