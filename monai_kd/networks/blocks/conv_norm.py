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

"""A convolution and batch normalisation, numbered as published weights have them."""

from __future__ import annotations

from torch import nn


def conv_norm(
    in_channels: int,
    out_channels: int,
    kernel_size: int = 3,
    stride: int = 1,
    groups: int = 1,
    act: nn.Module | None = None,
) -> nn.Sequential:
    """
    A convolution without bias, batch normalisation, and an activation where one is given. MONAI's
    :py:class:`monai.networks.blocks.Convolution` computes the same under other names.

    Args:
        in_channels: channels that enter.
        out_channels: channels that leave.
        kernel_size: odd; the size is kept at stride 1.
        stride: of the convolution.
        groups: of the convolution.
        act: what follows.

    Example::

        >>> import torch
        >>> conv_norm(4, 8, stride=2, act=nn.ReLU())(torch.zeros(1, 4, 6, 6)).shape
        torch.Size([1, 8, 3, 3])
    """
    conv = nn.Conv2d(
        in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2, groups=groups, bias=False
    )
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), *([] if act is None else [act]))
