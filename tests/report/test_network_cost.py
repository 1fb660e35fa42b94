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

import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from monai_kd.report import network_cost

module = sys.modules[network_cost.__module__]  # whose name is the function's


def test_conv2d_by_hand():
    """8 x 8 positions, 3 x 3 x 2 weights, 4 channels: 64 * 18 * 4 multiply-adds, with 4 * 18 weights and 4 biases."""
    cost = network_cost(nn.Conv2d(2, 4, 3, padding=1), (1, 2, 8, 8), runs=3)
    assert cost.parameters == cost.used_parameters == 76
    assert cost.flops == 2 * 64 * 18 * 4
    assert cost.size == pytest.approx(76 * 4 / 1e6)
    assert 0 < cost.latency_p50 <= cost.latency_p95
    assert (cost.input_shape, cost.device) == ((1, 2, 8, 8), "cpu")


def test_latency_is_the_median_and_what_95_of_100_passes_stay_below(monkeypatch):
    """100 passes of 1 to 100 ms after two slow ones."""
    lengths = [0.9, 0.8, *(number / 1e3 for number in range(1, 101))]
    ticks = iter([tick for length in lengths for tick in (0.0, length)])
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    cost = network_cost(nn.Conv2d(1, 1, 1), (1, 1, 4, 4), runs=100, warm_up=2)
    assert next(ticks, None) is None
    assert (cost.latency_p50, cost.latency_p95) == pytest.approx((50.5, 95.05))


def test_conv_transpose3d_by_hand():
    """Each of the 4^3 input positions meets 2^3 x 3 x 5 weights."""
    assert network_cost(nn.ConvTranspose3d(3, 5, 2, stride=2), (1, 3, 4, 4, 4), runs=1).flops == 2 * 64 * 8 * 3 * 5


def test_flops_grow_with_the_batch():
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Conv2d(3, 2, 1))
    one, three = (network_cost(network, (batch, 1, 8, 8), runs=1).flops for batch in (1, 3))
    assert three == 3 * one


class Odd(nn.Module):
    """A layer that never runs, a frozen one, heads for training only, and an output that is a list."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head, self.aside, self.deep = (nn.Conv2d(1, 1, 1) for _ in range(4))
        self.norm = nn.BatchNorm2d(1)
        self.head.requires_grad_(False)

    def forward(self, image):
        feature = self.norm(self.body(image))
        return [self.head(feature), self.deep(feature)] if self.training else [self.head(feature)]


def test_used_parameters_are_those_that_get_a_gradient():
    cost = network_cost(Odd(), (2, 1, 4, 4), runs=1)
    assert cost.parameters == 4 * 2 + 2
    assert cost.used_parameters == 2 * 2 + 2
    assert cost.size == pytest.approx((10 * 4 + 2 * 4 + 8) / 1e6)  # the running mean and variance, and an int64 counter


def test_network_is_left_as_it_was():
    network = Odd().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network_cost(network, (2, 1, 4, 4), runs=1)
    assert network.training
    assert not network.head.weight.requires_grad
    assert all(parameter.grad is None for parameter in network.parameters())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_network_without_parameters():
    cost = network_cost(nn.ReLU(), (1, 1, 4, 4), runs=1)
    assert (cost.parameters, cost.used_parameters, cost.flops, cost.size) == (0, 0, 0, 0)


@pytest.mark.parametrize("shape", [(1, 4), (1, 0, 4, 4), (1, 1.0, 4, 4)])
def test_shape_that_is_none_is_refused(shape):
    with pytest.raises(ValueError, match=r"`input_shape` must be \(batch, channel, \*spatial\)"):
        network_cost(nn.ReLU(), shape)


def test_shape_that_does_not_suit_is_refused():
    with pytest.raises(ValueError, match=r"`input_shape` must suit Conv2d, but got \(1, 3, 8, 8\)"):
        network_cost(nn.Conv2d(1, 1, 1), (1, 3, 8, 8))


@pytest.mark.parametrize(("runs", "warm_up"), [(0, 1), (1, -1)])
def test_no_run_is_refused(runs, warm_up):
    with pytest.raises(ValueError, match="`runs` must be at least 1"):
        network_cost(nn.ReLU(), (1, 1, 4, 4), runs, warm_up)
