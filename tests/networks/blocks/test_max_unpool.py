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

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from monai_kd.networks.blocks import max_unpool


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 3), st.integers(1, 3), st.integers(1, 5), st.integers(1, 5), st.integers(0, 99))
def test_equals_torch(batch: int, channels: int, height: int, width: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randint(0, 3, (batch, channels, 2 * height, 2 * width), generator=generator).float()  # many ties
    pooled, position = F.max_pool2d(x, 2, return_indices=True)
    values = torch.randn(pooled.shape, generator=generator)
    assert torch.equal(max_unpool(values, position), F.max_unpool2d(values, position, 2))


def test_gradient_equals_torch() -> None:
    _, position = F.max_pool2d(torch.rand(2, 3, 8, 6), 2, return_indices=True)
    values = torch.randn(position.shape, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 3, 8, 6, dtype=torch.float64)
    (ours,) = torch.autograd.grad((max_unpool(values, position) * weight).sum(), values)
    (theirs,) = torch.autograd.grad((F.max_unpool2d(values, position, 2) * weight).sum(), values)
    assert torch.equal(ours, theirs)


def test_pooling_again_gives_the_same() -> None:
    pooled, position = F.max_pool2d(torch.rand(1, 2, 8, 8), 2, return_indices=True)
    assert torch.equal(F.max_pool2d(max_unpool(pooled, position), 2), pooled)


def test_keeps_half_precision() -> None:
    pooled, position = F.max_pool2d(torch.rand(1, 2, 4, 4).bfloat16(), 2, return_indices=True)
    assert max_unpool(pooled, position).dtype is torch.bfloat16
