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
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from monai_kd.networks.blocks import PyramidPooling
from monai_kd.networks.blocks.pyramid_pooling import _PartAverage


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 7))
def test_parts_are_those_of_adaptive_average_pooling(height: int, width: int, bins: int) -> None:
    feature = torch.randn(2, 3, height, width, dtype=torch.float64)
    torch.testing.assert_close(_PartAverage(bins)(feature), F.adaptive_avg_pool2d(feature, bins))


def test_parts_by_hand() -> None:
    """Of five columns, three parts take 0-1, 1-3 and 3-4."""
    row = torch.tensor([1.0, 3.0, 5.0, 7.0, 11.0]).expand(1, 1, 3, 5)
    torch.testing.assert_close(_PartAverage(3)(row), torch.tensor([2.0, 5.0, 9.0]).expand(1, 1, 3, 3))


def test_value() -> None:
    torch.manual_seed(0)
    block = PyramidPooling(4, bins=(1, 2)).double().eval()
    feature = torch.randn(2, 4, 5, 6, dtype=torch.float64)
    expected = [feature]
    for bins, branch in zip((1, 2), block.branches, strict=True):
        norm, weight = branch[2], branch[1].weight
        nn.init.normal_(norm.running_mean), nn.init.uniform_(norm.running_var), nn.init.normal_(norm.bias)
        reduced = F.conv2d(F.adaptive_avg_pool2d(feature, bins), weight)
        reduced = F.batch_norm(reduced, norm.running_mean, norm.running_var, norm.weight, norm.bias).relu()
        expected.append(F.interpolate(reduced, (5, 6), mode="bilinear", align_corners=True))
    torch.testing.assert_close(block(feature), torch.cat(expected, dim=1))


def test_gradient() -> None:
    torch.manual_seed(0)
    block = PyramidPooling(4, bins=(1, 3)).double().eval()
    feature = torch.randn(1, 4, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(block, (feature,))


def test_batch_of_one_trains() -> None:
    feature = torch.randn(1, 8, 6, 6, requires_grad=True)
    PyramidPooling(8).train()(feature).square().sum().backward()
    assert feature.grad.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_mean_of_ones_in_half_precision(dtype: torch.dtype) -> None:
    pooled = _PartAverage(3)(torch.ones(1, 2, 48, 50, dtype=dtype))
    assert pooled.dtype is dtype
    torch.testing.assert_close(pooled.float(), torch.ones(1, 2, 3, 3), rtol=0.01, atol=0)


@pytest.mark.parametrize("bins", [(), (0, 1)])
def test_bins_must_be_positive(bins: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="`bins` must be numbers of 1 or more, but got"):
        PyramidPooling(4, bins=bins)


def test_channels_must_divide() -> None:
    with pytest.raises(ValueError, match="`in_channels` must be a multiple of the 4 `bins`, but got 6"):
        PyramidPooling(6)
