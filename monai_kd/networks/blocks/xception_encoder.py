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
"""The aligned Xception of DeepLabV3+, dilated to keep 1/8 of the size, as an encoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from monai_kd.networks.blocks.conv_norm import conv_norm


class XceptionEncoder(nn.Module):
    """
    Aligned Xception-65: an entry flow of three blocks, a middle flow of sixteen and an exit flow, of separable
    convolutions of which some have a stride instead of a pooling.

    Chen et al., DeepLabV3+, ECCV 2018, arXiv:1802.02611, Sec. 3.2 and Fig. 4, as the released code of EMKD builds it
    for an output stride of 8: the third block of the entry flow and the block of the exit flow have no stride, the
    middle flow dilates by 2, the exit flow by 2 and then 4. Differences of that code from the paper, kept here, since
    they are in the values and the number of parameters of the network that EMKD reports:

    - batch normalisation follows each depth-wise convolution, but no ReLU, and ReLU stands before the next separable
      convolution;
    - the identity beside a block of the middle flow starts after the block's first ReLU (there because that ReLU
      writes in place), so do the projections of the third and of the last block;
    - the convolution of the exit flow's block that widens to 1024 channels has no batch normalisation of its own.

    Nothing is written in place, so that a captured feature keeps its values.

    Args:
        in_channels: channels of the image.

    Example::

        >>> import torch
        >>> [feature.shape[1:] for feature in XceptionEncoder().eval()(torch.zeros(1, 1, 64, 64))]
        [torch.Size([128, 16, 16]), torch.Size([2048, 8, 8])]
    """

    def __init__(self, in_channels: int = 1) -> None:
        super().__init__()
        self.stem = conv_norm(in_channels, 32, stride=2, act=nn.ReLU())  # 32, 1/2
        self.widen = conv_norm(32, 64, act=nn.ReLU())
        self.entry1 = nn.Sequential(_Block((64, 128, 128, 128), stride=2, start=nn.Identity()), nn.ReLU())  # 128, 1/4
        self.entry2 = _Block((128, 256, 256, 256), stride=2, start=nn.Identity())  # 256, 1/8
        self.entry3 = _Block((256, 728, 728, 728))  # 728, 1/8
        self.middle = nn.Sequential(*(_Block((728, 728, 728, 728), dilation=2) for _ in range(16)))
        self.exit = nn.Sequential(
            _Block((728, 728, 1024, 1024), dilation=2, normalised=(True, False, True)),
            nn.ReLU(),
            _separable_unit(1024, 1536, dilation=4),
            _separable_unit(1536, 1536, dilation=4),
            _separable_unit(1536, 2048, dilation=4),
        )  # 2048, 1/8

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Args:
            image: (B, in_channels, H, W).

        Returns:
            The output of the entry flow's first block, (B, 128, H / 4, W / 4), and of the exit flow,
            (B, 2048, H / 8, W / 8), sizes rounded up.
        """
        feature1 = self.entry1(self.widen(self.stem(image)))
        return feature1, self.exit(self.middle(self.entry3(self.entry2(feature1))))


class _Block(nn.Module):
    """
    Three separable convolutions, the last with the stride, beside the identity or a projection.

    Args:
        channels: that enter, and that leave each convolution.
        stride: of the last convolution.
        dilation: of all three.
        start: what comes before both paths; ReLU when None.
        normalised: whether batch normalisation follows each convolution.
    """

    def __init__(
        self,
        channels: Sequence[int],
        stride: int = 1,
        dilation: int = 1,
        start: nn.Module | None = None,
        normalised: Sequence[bool] = (True, True, True),
    ) -> None:
        super().__init__()
        self.start = nn.ReLU() if start is None else start
        layers: list[nn.Module] = []
        for i in range(3):
            layers += [nn.ReLU()] if i else []
            layers += [_separable(channels[i], channels[i + 1], stride if i == 2 else 1, dilation)]
            layers += [nn.BatchNorm2d(channels[i + 1])] if normalised[i] else []
        self.branch = nn.Sequential(*layers)
        self.skip = (
            nn.Identity()
            if channels[0] == channels[3]
            else conv_norm(channels[0], channels[3], kernel_size=1, stride=stride)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.start(x)
        return self.branch(x) + self.skip(x)


def _separable(in_channels: int, out_channels: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """Depth-wise, normalised, then point-wise."""
    return nn.Sequential(
        nn.Conv2d(
            in_channels,
            in_channels,
            kernel_size=3,
            stride=stride,
            padding=dilation,
            dilation=dilation,
            groups=in_channels,
            bias=False,
        ),
        nn.BatchNorm2d(in_channels),
        nn.Conv2d(in_channels, out_channels, kernel_size=1, bias=False),
    )


def _separable_unit(in_channels: int, out_channels: int, dilation: int) -> nn.Sequential:
    return nn.Sequential(
        _separable(in_channels, out_channels, dilation=dilation), nn.BatchNorm2d(out_channels), nn.ReLU()
    )
