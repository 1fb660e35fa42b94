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

"""EPSANet's attention: which scale of view matters, decided for every channel."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn


class PyramidSqueezeAttention(nn.Module):
    r"""
    Sees a map through kernels of four sizes, and weights, channel by channel, the sizes against each other.

    .. math::
        f_i = \mathrm{Conv}_{k_i \times k_i}(x), \qquad a_i = \sigma(W_2 \, \mathrm{ReLU}(W_1 \bar f_i)), \qquad
        y = \mathrm{cat}_i \Big( \frac{e^{a_i}}{\sum_j e^{a_j}} \odot f_i \Big)

    with :math:`\bar f` the mean over H and W, and :math:`W_1, W_2` (biases included) shared by the branches. Zhang et
    al., EPSANet, ACCV 2022 (arXiv:2105.14447), Eq. 1 to 9. As in its released code the branches are joined in reverse
    order, that of the largest kernel first; the paper does not reverse them.

    Args:
        in_channels: channels that enter, divisible by every group.
        out_channels: channels that leave, an equal part from every branch.
        kernel_sizes: one a branch, odd.
        groups: of the convolution of each branch; each must divide ``in_channels`` and the channels of a branch. The
            released 1, 4, 8, 16 cost about the same in every branch and need 64 channels or more.
        reduction: by how much the two layers that weight a branch narrow its channels, at most down to one.

    Raises:
        ValueError: when there are not as many groups as kernels, or channels and groups do not divide.

    Example::

        >>> import torch
        >>> PyramidSqueezeAttention(64, 64)(torch.zeros(2, 64, 16, 16)).shape
        torch.Size([2, 64, 16, 16])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_sizes: Sequence[int] = (3, 5, 7, 9),
        groups: Sequence[int] = (1, 4, 8, 16),
        reduction: int = 16,
    ) -> None:
        super().__init__()
        self._check(in_channels, out_channels, kernel_sizes, groups)
        channels = out_channels // len(kernel_sizes)
        self.branches = nn.ModuleList(
            nn.Conv2d(in_channels, channels, size, padding=size // 2, groups=group, bias=False)
            for size, group in zip(kernel_sizes, groups, strict=True)
        )
        squeeze = nn.Conv2d(channels, max(1, channels // reduction), kernel_size=1)
        nn.init.ones_(squeeze.get_parameter("bias"))  # a waist of one must not start behind a shut ReLU
        excite = nn.Conv2d(squeeze.out_channels, channels, kernel_size=1)
        self.weight = nn.Sequential(nn.AdaptiveAvgPool2d(1), squeeze, nn.ReLU(), excite, nn.Sigmoid())

    @staticmethod
    def _check(in_channels: int, out_channels: int, kernel_sizes: Sequence[int], groups: Sequence[int]) -> None:
        if len(groups) != len(kernel_sizes):
            raise ValueError(f"`groups` must be one for each of {len(kernel_sizes)} kernels, but got {tuple(groups)}.")
        if any(size < 1 or size % 2 == 0 for size in kernel_sizes):
            raise ValueError(f"`kernel_sizes` must be odd, but got {tuple(kernel_sizes)}.")
        channels, rest = divmod(out_channels, len(kernel_sizes))
        if rest or channels < 1:
            raise ValueError(
                f"`out_channels` must be divisible by {len(kernel_sizes)} branches, but got {out_channels}."
            )
        if any(group < 1 or in_channels % group or channels % group for group in groups):
            raise ValueError(
                f"`groups` must divide `in_channels` ({in_channels}) and the channels of a branch ({channels}), but "
                f"got {tuple(groups)}; take smaller ones or more channels."
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """
        Args:
            x: (B, in_channels, H, W).

        Returns:
            (B, out_channels, H, W).
        """
        features = torch.stack([branch(x) for branch in self.branches], dim=1)  # (B, branch, channel, H, W)
        weights = self.weight(features.flatten(0, 1)).reshape(features.shape[:3]).softmax(dim=1)
        return (features * weights[..., None, None]).flip(1).flatten(1, 2)
