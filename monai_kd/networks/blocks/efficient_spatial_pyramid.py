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

"""ESPNet's block: few channels, seen at five dilations at once."""

from __future__ import annotations

import torch
from monai.networks.blocks import ADN, Convolution
from torch import nn

DILATIONS = (1, 2, 4, 8, 16)


class EfficientSpatialPyramid(nn.Module):
    """
    ESPNet's module: reduce to a fifth of the channels, transform them by five parallel convolutions of dilation 1, 2,
    4, 8 and 16, and merge by concatenation. Before that each output of dilation 4 and more is added to the sum of those
    from 2 on, which takes away the grid that a single large dilation leaves (hierarchical feature fusion).

    Mehta et al., ESPNet, arXiv:1803.06815, Sec. 3, Fig. 1, with K = 5. No convolution has a bias; batch normalisation
    and PReLU (one slope a channel) close the module. Where ``out_channels`` is no multiple of five, the convolution of
    dilation 1 takes the rest, as in the released code.

    Args:
        in_channels: channels that enter.
        out_channels: channels that leave, 5 or more.
        stride: 1 reduces channels by a convolution of kernel 1; 2 halves H and W as well, by one of kernel 3. The
            identity is added in front of the normalisation where neither size nor channels change.

    Raises:
        ValueError: when ``out_channels`` is below 5 or ``stride`` neither 1 nor 2.

    Example::

        >>> import torch
        >>> EfficientSpatialPyramid(16, 32, stride=2)(torch.zeros(2, 16, 8, 8)).shape
        torch.Size([2, 32, 4, 4])
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        if out_channels < len(DILATIONS):
            raise ValueError(f"`out_channels` must be {len(DILATIONS)} or more, but got {out_channels}.")
        if stride not in (1, 2):
            raise ValueError(f"`stride` must be 1 or 2, but got {stride}.")

        def conv(
            in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, dilation: int = 1
        ) -> nn.Module:
            return Convolution(
                2, in_channels, out_channels, stride, kernel_size, dilation=dilation, bias=False, conv_only=True
            )

        waist = out_channels // len(DILATIONS)
        rest = out_channels - waist * (len(DILATIONS) - 1)
        self.reduce = conv(in_channels, waist, kernel_size=1 if stride == 1 else 3, stride=stride)
        self.branches = nn.ModuleList(
            conv(waist, rest if dilation == 1 else waist, kernel_size=3, dilation=dilation) for dilation in DILATIONS
        )
        self.has_identity = stride == 1 and in_channels == out_channels
        self.adn = ADN(
            in_channels=out_channels,
            act=("prelu", {"num_parameters": out_channels}),
            norm=("batch", {"eps": 1e-3}),
            norm_dim=2,
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """
        Args:
            x: (B, in_channels, H, W), H and W even for a stride of 2.

        Returns:
            (B, out_channels, H / stride, W / stride).
        """
        reduced = self.reduce(x)
        parts: list[torch.Tensor] = []
        for index, branch in enumerate(self.branches):
            part = branch(reduced)
            parts.append(part if index < 2 else parts[-1] + part)
        merged = torch.cat(parts, dim=1)
        return self.adn(x + merged if self.has_identity else merged)
