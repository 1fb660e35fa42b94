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

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from monai_kd.networks.blocks import EfficientSpatialPyramid


def _filled(block: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    norm, act = block.adn.N, block.adn.A
    nn.init.normal_(norm.running_mean, std=0.3), nn.init.uniform_(norm.running_var, 0.5, 1.5)
    nn.init.uniform_(norm.weight, 0.5, 1.5), nn.init.normal_(norm.bias, std=0.3)
    nn.init.uniform_(act.weight, 0.1, 0.6)
    return block.eval().requires_grad_(False)


def _normalized(block: nn.Module, x: torch.Tensor) -> torch.Tensor:
    norm = block.adn.N
    x = F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=1e-3)
    return torch.where(x >= 0, x, block.adn.A.weight[None, :, None, None] * x)


@pytest.mark.parametrize(("in_channels", "out_channels", "stride"), [(12, 12, 1), (4, 12, 1), (4, 10, 2), (10, 10, 2)])
def test_reduce_split_transform_merge(in_channels: int, out_channels: int, stride: int) -> None:
    block = _filled(EfficientSpatialPyramid(in_channels, out_channels, stride))
    x = torch.randn(2, in_channels, 10, 8)
    weights = [branch.conv.weight for branch in block.branches]
    reduced = F.conv2d(x, block.reduce.conv.weight, stride=stride, padding=stride - 1)
    one, two, four, eight, sixteen = (
        F.conv2d(reduced, weight, padding=dilation, dilation=dilation)
        for weight, dilation in zip(weights, (1, 2, 4, 8, 16), strict=True)
    )
    parts = [one, two, two + four, two + four + eight, two + four + eight + sixteen]
    identity = x if (in_channels, stride) == (out_channels, 1) else 0
    expected = _normalized(block, identity + torch.cat(parts, dim=1))
    torch.testing.assert_close(block(x), expected, rtol=1e-4, atol=1e-5)


def test_dilation_1_takes_the_rest() -> None:
    assert [branch.conv.out_channels for branch in EfficientSpatialPyramid(19, 64).branches] == [16, 12, 12, 12, 12]


def test_last_part_sees_all_dilations_but_the_first() -> None:
    """One pixel of light and kernels of ones: nine pixels for each dilation, and the four of 2 to 16 are summed."""
    block = EfficientSpatialPyramid(1, 5)
    for conv in (block.reduce, *block.branches):
        nn.init.ones_(conv.conv.weight)
    block.adn = nn.Identity()
    x = torch.zeros(1, 1, 33, 33)
    x[..., 16, 16] = 1
    parts = block(x)[0]
    assert parts.sum(dim=(1, 2)).tolist() == [9, 9, 18, 27, 36]
    assert parts[:, 16, 16].tolist() == [1, 1, 2, 3, 4]
    assert parts[4, 16].nonzero().flatten().tolist() == [0, 8, 12, 14, 16, 18, 20, 24, 32]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((8, 4), "`out_channels` must be 5 or more, but got 4"),
        ((8, 8, 3), "`stride` must be 1 or 2, but got 3"),
    ],
)
def test_arguments(arguments: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EfficientSpatialPyramid(*arguments)
