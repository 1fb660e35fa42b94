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

"""ENet's residual block that halves the size."""

from __future__ import annotations

from functools import partial

import torch
from monai.networks.blocks import Convolution
from torch import nn


class ENetDownsampling(nn.Module):
    """
    ENet's bottleneck that halves H and W, and remembers where its max pooling took each value.

    Paszke et al., ENet, arXiv:1606.02147, Fig. 2b. There the pooled map is padded with zero channels; the released code
    of EMKD, whose parameter count the paper of EMKD reports, projects it by a convolution of kernel 1 and batch
    normalisation. Default: the projection.

    Args:
        in_channels: channels that enter.
        out_channels: channels that leave, 4 or more.

    Example::

        >>> import torch
        >>> feature, position = ENetDownsampling(16, 64)(torch.zeros(1, 16, 8, 8))
        >>> feature.shape, position.shape
        (torch.Size([1, 64, 4, 4]), torch.Size([1, 16, 4, 4]))
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        waist = out_channels // 4
        conv = partial(Convolution, 2, bias=False, norm="batch", dropout_dim=2)
        self.pool = nn.MaxPool2d(kernel_size=2, return_indices=True)
        self.project = conv(in_channels, out_channels, kernel_size=1, act=None)
        self.branch = nn.Sequential(
            conv(in_channels, waist, kernel_size=1),
            conv(waist, waist, kernel_size=2, strides=2, padding=0),
            conv(waist, out_channels, kernel_size=1, act=None, dropout=0.1),
        )
        self.act = nn.PReLU()

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Args:
            x: (B, in_channels, H, W), H and W even.

        Returns:
            The feature (B, out_channels, H / 2, W / 2), and for :py:func:`~monai_kd.networks.blocks.max_unpool` the
            positions of the maxima (B, in_channels, H / 2, W / 2).
        """
        pooled, position = self.pool(x)
        return self.act(self.project(pooled) + self.branch(x)), position
