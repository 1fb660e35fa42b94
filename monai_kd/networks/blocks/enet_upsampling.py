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

"""ENet's residual block that doubles the size."""

from __future__ import annotations

from functools import partial

import torch
from monai.networks.blocks import Convolution
from torch import nn

from monai_kd.networks.blocks.max_unpool import max_unpool


class ENetUpsampling(nn.Module):
    """
    ENet's bottleneck that doubles H and W: unpooling to where the encoder took its maxima, plus a transposed
    convolution.

    Paszke et al., ENet, arXiv:1606.02147, section 3. There the decoder activates by ReLU; the released code of EMKD by
    PReLU, here and in the whole decoder. Default: PReLU.

    Args:
        in_channels: channels that enter.
        out_channels: channels that leave, 4 or more; those of the encoder's pooling.

    Example::

        >>> import torch
        >>> ENetUpsampling(64, 16)(torch.zeros(1, 64, 4, 4), torch.zeros(1, 16, 4, 4, dtype=torch.int64)).shape
        torch.Size([1, 16, 8, 8])
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        waist = out_channels // 4
        conv = partial(Convolution, 2, bias=False, norm="batch", dropout_dim=2)
        self.project = conv(in_channels, out_channels, kernel_size=1, act=None)
        self.branch = nn.Sequential(
            conv(in_channels, waist, kernel_size=1),
            conv(waist, waist, kernel_size=2, strides=2, padding=0, output_padding=0, is_transposed=True),
            conv(waist, out_channels, kernel_size=1, act=None, dropout=0.1),
        )
        self.act = nn.PReLU()

    def forward(self, x: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        """
        Args:
            x: (B, in_channels, H, W).
            position: of the maxima, (B, out_channels, H, W).

        Returns:
            (B, out_channels, 2 H, 2 W).
        """
        return self.act(max_unpool(self.project(x), position) + self.branch(x))
