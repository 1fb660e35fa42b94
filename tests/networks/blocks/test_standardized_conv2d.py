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

from monai_kd.networks.blocks import StandardizedConv2d


def test_value() -> None:
    conv = StandardizedConv2d(4, 6, kernel_size=3, stride=2, padding=1, groups=2).double()
    x = torch.randn(2, 4, 7, 9, dtype=torch.float64)
    weight = conv.weight
    centred = weight - weight.mean((1, 2, 3), keepdim=True)
    weight = centred / (centred.square().mean((1, 2, 3), keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(conv(x), F.conv2d(x, weight, conv.bias, stride=2, padding=1, groups=2))


def test_neither_scale_nor_shift_of_a_filter_matters() -> None:
    conv, x = StandardizedConv2d(4, 6, kernel_size=3, bias=False), torch.randn(2, 4, 7, 9)
    before = conv(x)
    with torch.no_grad():
        conv.weight.mul_(torch.linspace(20, 100, 6).reshape(6, 1, 1, 1)).add_(3)
    torch.testing.assert_close(conv(x), before, rtol=1e-2, atol=1e-2)  # 1e-5 beside the variance


def test_a_constant_filter_is_finite() -> None:
    conv = StandardizedConv2d(1, 1, kernel_size=1)
    nn.init.zeros_(conv.bias)
    conv(torch.randn(1, 1, 4, 4)).sum().backward()
    assert conv.weight.grad.abs().max() == 0


def test_gradient() -> None:
    conv = StandardizedConv2d(2, 3, kernel_size=3).double()
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64)

    def by_weight(weight: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(conv, {"weight": weight, "bias": conv.bias}, (x,))

    assert torch.autograd.gradcheck(by_weight, conv.weight.detach().requires_grad_())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_small_weights_in_half_precision(dtype: torch.dtype) -> None:
    """Their variance is near the smallest number that float16 has."""
    conv, x = StandardizedConv2d(64, 4, kernel_size=3), torch.randn(1, 64, 5, 5)
    nn.init.normal_(conv.weight, std=1e-3)
    expected = conv(x)
    half = conv.to(dtype)(x.to(dtype)).float()
    assert (half - expected).norm() / expected.norm() < 0.02
