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

"""ENet's residual block at constant size."""

from __future__ import annotations

from functools import partial

import torch
from monai.networks.blocks import Convolution
from torch import nn


class ENetBottleneck(nn.Module):
    """
    ENet's residual bottleneck: a quarter of the channels, one spatial convolution, back to all, plus the identity.

    The spatial convolution has kernel 3, dilated where asked, or is split into kernels (5, 1) and (1, 5). Paszke et
    al., ENet, arXiv:1606.02147, Fig. 2b; batch normalisation and PReLU (one slope a layer) follow the convolutions, no
    convolution has a bias. The paper drops channels at 0.01 before its bottleneck 2.0 and at 0.1 after it; the released
    code of EMKD at 0.1 everywhere. Default: 0.1.

    Args:
        channels: channels that enter and leave, 4 or more.
        dilation: of the spatial convolution of kernel 3.
        asymmetric: whether the spatial convolution is split, then without dilation.

    Example::

        >>> import torch
        >>> ENetBottleneck(16, dilation=2)(torch.zeros(1, 16, 8, 8)).shape
        torch.Size([1, 16, 8, 8])
    """

    def __init__(self, channels: int, dilation: int = 1, asymmetric: bool = False) -> None:
        super().__init__()
        waist = channels // 4
        conv = partial(Convolution, 2, bias=False, norm="batch", dropout_dim=2)
        spatial = [conv(waist, waist, kernel_size=3, dilation=dilation)]
        if asymmetric:
            spatial = [conv(waist, waist, kernel_size=(5, 1), conv_only=True), conv(waist, waist, kernel_size=(1, 5))]
        self.branch = nn.Sequential(
            conv(channels, waist, kernel_size=1),
            *spatial,
            conv(waist, channels, kernel_size=1, act=None, dropout=0.1),
        )
        self.act = nn.PReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """
        Args:
            x: (B, channels, H, W).

        Returns:
            (B, channels, H, W).
        """
        return self.act(x + self.branch(x))
