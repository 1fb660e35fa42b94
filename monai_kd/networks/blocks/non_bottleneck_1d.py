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

"""ERFNet's residual block: ResNet's, with each square kernel split in two."""

from __future__ import annotations

from functools import partial

import torch
from monai.networks.blocks import Convolution
from torch import nn


class NonBottleneck1D(nn.Module):
    """
    A residual block whose two convolutions of kernel 3 are split into kernels (3, 1) and (1, 3), with a ReLU in
    between; the second pair may be dilated.

    Romera et al., ERFNet, IEEE T-ITS 2018, Sec. III. All convolutions have a bias, and batch normalisation
    follows each pair; whole channels of the branch may be dropped before the identity is added.

    Args:
        channels: channels that enter and leave.
        dilation: of the second pair.
        dropout: share of the branch's channels that are dropped in training, in [0, 1).

    Example::

        >>> import torch
        >>> NonBottleneck1D(16, dilation=2)(torch.zeros(1, 16, 8, 8)).shape
        torch.Size([1, 16, 8, 8])
    """

    def __init__(self, channels: int, dilation: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        norm = ("batch", {"eps": 1e-3})
        conv = partial(Convolution, 2, channels, channels, act="relu", norm=None, dropout_dim=2)
        self.branch = nn.Sequential(
            conv(kernel_size=(3, 1)),
            conv(kernel_size=(1, 3), norm=norm),
            conv(kernel_size=(3, 1), dilation=(dilation, 1)),
            conv(kernel_size=(1, 3), dilation=(1, dilation), norm=norm, act=None, dropout=dropout or None),
        )
        self.act = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """
        Args:
            x: (B, channels, H, W).

        Returns:
            (B, channels, H, W).
        """
        return self.act(x + self.branch(x))
