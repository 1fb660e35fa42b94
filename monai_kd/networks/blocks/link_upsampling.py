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

"""LinkNet's decoder block: a narrow waist, doubled in size."""

from __future__ import annotations

from functools import partial

from monai.networks.blocks import Convolution
from torch import nn


class LinkUpsampling(nn.Sequential):
    """
    Doubles H and W through a bottleneck: convolution of kernel 1 to a quarter of the channels, transposed convolution
    of kernel 4 and stride 2, convolution of kernel 1; batch normalisation and ReLU after each.

    Chaurasia and Culurciello, LinkNet, VCIP 2017 (arXiv:1707.03718), decoder block. There the transposed convolution
    has kernel 3; the RAUNet of EMKD's released code has kernel 4, which covers every output pixel alike. Default:
    kernel 4.

    Args:
        in_channels: channels that enter, 4 or more.
        out_channels: channels that leave.

    Example::

        >>> import torch
        >>> LinkUpsampling(16, 8)(torch.zeros(1, 16, 4, 4)).shape
        torch.Size([1, 8, 8, 8])
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        waist = in_channels // 4
        conv = partial(Convolution, 2, act="relu", norm="batch")
        super().__init__(
            conv(in_channels, waist, kernel_size=1),
            conv(waist, waist, kernel_size=4, strides=2, padding=1, output_padding=0, is_transposed=True),
            conv(waist, out_channels, kernel_size=1),
        )
