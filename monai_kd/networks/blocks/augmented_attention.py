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

"""RAUNet's attention: the whole image decides which channels of a skip connection pass."""

from __future__ import annotations

import torch
from monai.networks.blocks import Convolution
from torch import nn

from monai_kd.networks.blocks.pooled_batch_norm import PooledBatchNorm


class AugmentedAttention(nn.Module):
    r"""
    Adds the skip connection to the decoder's feature, each of its channels weighted by what both maps hold on average.

    .. math:: y = d + a \odot f_s(s), \qquad a = \mathrm{softmax}_C\big(W (g_d(\bar d) + g_s(\bar s)) + b\big)

    with :math:`d` the decoder's feature, :math:`s` the encoder's, :math:`\bar x` the mean over H and W, and
    :math:`f, g` each a convolution of kernel 1, batch normalisation and ReLU. The weights of an image sum to 1 over its
    channels. Ni et al., RAUNet, ICONIP 2019, arXiv:1909.10360 ("augmented attention module").

    The pooled maps are normalised by :py:class:`~monai_kd.networks.blocks.PooledBatchNorm`, so that a batch of one
    trains; for larger batches it is the batch normalisation of the paper.

    Args:
        channels: channels of both maps.

    Example::

        >>> import torch
        >>> AugmentedAttention(8)(torch.zeros(2, 8, 4, 4), torch.zeros(2, 8, 4, 4)).shape
        torch.Size([2, 8, 4, 4])
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.decoder_context = self._context(channels)
        self.skip_context = self._context(channels)
        self.weight = nn.Sequential(nn.Conv2d(channels, channels, kernel_size=1), nn.Softmax(dim=1))
        self.skip = Convolution(2, channels, channels, kernel_size=1, act="relu", norm="batch")

    @staticmethod
    def _context(channels: int) -> nn.Sequential:
        return nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, channels, kernel_size=1),
            PooledBatchNorm(channels),
            nn.ReLU(),
        )

    def forward(self, feature: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        """
        Args:
            feature: the decoder's, (B, C, H, W).
            skip: the encoder's, (B, C, H, W).

        Returns:
            (B, C, H, W).
        """
        weight = self.weight(self.decoder_context(feature) + self.skip_context(skip))  # (B, C, 1, 1)
        return feature + weight * self.skip(skip)
