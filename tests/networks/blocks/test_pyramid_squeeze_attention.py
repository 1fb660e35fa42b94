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

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from monai_kd.networks.blocks import PyramidSqueezeAttention


def _block() -> PyramidSqueezeAttention:
    return PyramidSqueezeAttention(8, 12, kernel_sizes=(1, 3, 5), groups=(1, 2, 4), reduction=2).double()


def test_equals_released_code(shared_parity: Path) -> None:
    """EPSANet models/epsanet.py:15-54, 64 channels; the loss is the mean of the squares."""
    cases = json.loads((shared_parity / "cases.json").read_text())["cases"]
    case = next(case for case in cases if case["id"] == "epsa/PSAModule64_sum_sq")
    with np.load(shared_parity / case["npz"]) as arrays:
        tensors = {name: torch.from_numpy(arrays[name]) for name in arrays}
    block = PyramidSqueezeAttention(64, 64)
    weights = {f"branches.{index}.weight": tensors[f"conv_{index + 1}_weight"] for index in range(4)}
    for ours, theirs in (("1", "fc1"), ("3", "fc2")):
        weights |= {f"weight.{ours}.{kind}": tensors[f"se_{theirs}_{kind}"] for kind in ("weight", "bias")}
    block.load_state_dict(weights)
    x = tensors["s"].requires_grad_()
    y = block(x)
    loss = y.square().mean()
    loss.backward()
    assert loss.item() == pytest.approx(case["loss"], rel=1e-5)
    assert y.flatten()[:4].tolist() == pytest.approx(case["extra"]["first4"], rel=1e-4)
    assert x.grad.norm().item() == pytest.approx(case["grad_norms"]["s"], rel=1e-4)
    torch.testing.assert_close(x.grad, tensors["grad_s"], rtol=1e-4, atol=1e-9)


def test_value() -> None:
    block, x = _block(), torch.randn(2, 8, 5, 6, dtype=torch.float64)
    inner, outer = block.weight[1], block.weight[3]
    features, weights = [], []
    for branch in block.branches:
        feature = branch(x)
        waist = (feature.mean((2, 3)) @ inner.weight[:, :, 0, 0].T + inner.bias).clamp(min=0)
        score = waist @ outer.weight[:, :, 0, 0].T + outer.bias
        features.append(feature)
        weights.append((1 / (1 + (-score).exp())).exp())
    total = sum(weights)
    parts = [f * (w / total)[:, :, None, None] for f, w in zip(features, weights, strict=True)]
    torch.testing.assert_close(block(x), torch.cat(parts[::-1], dim=1))


def test_equal_scores_share_equally() -> None:
    block, x = _block(), torch.randn(2, 8, 5, 6, dtype=torch.float64)
    nn.init.zeros_(block.weight[3].weight)
    expected = torch.cat([branch(x) / 3 for branch in block.branches][::-1], dim=1)
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("seed", range(5))
def test_attention_learns_from_the_start(seed: int) -> None:
    """Of 32 channels a waist of one is left; a shut ReLU there would never open, and the weights stay a third each."""
    torch.manual_seed(seed)
    block = PyramidSqueezeAttention(32, 32, groups=(1, 2, 4, 8))
    block(torch.rand(2, 32, 8, 8)).square().sum().backward()
    assert all(parameter.grad.abs().max() > 0 for parameter in block.parameters())


def test_parameters() -> None:
    """32 channels to 8 a branch; the released groups need 64."""
    block = PyramidSqueezeAttention(32, 32, groups=(1, 2, 4, 8))
    branches = [branch.weight.numel() for branch in block.branches]
    assert branches == [32 * 8 * 9, 16 * 8 * 25, 8 * 8 * 49, 4 * 8 * 81]
    assert sum(parameter.numel() for parameter in block.weight.parameters()) == 8 + 1 + 8 + 8


def test_gradient() -> None:
    block = PyramidSqueezeAttention(2, 4, kernel_sizes=(1, 3), groups=(1, 2)).double().requires_grad_(False)
    x = torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(block, x)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"groups": (1, 2)}, r"`groups` must be one for each of 4 kernels, but got \(1, 2\)"),
        ({"kernel_sizes": (3, 4, 7, 9)}, r"`kernel_sizes` must be odd, but got \(3, 4, 7, 9\)"),
        ({"out_channels": 66}, "`out_channels` must be divisible by 4 branches, but got 66"),
        (
            {"out_channels": 32},
            r"`groups` must divide `in_channels` \(64\) and the channels of a branch \(8\), but got",
        ),
        (
            {"in_channels": 24},
            r"`groups` must divide `in_channels` \(24\) and the channels of a branch \(16\), but got",
        ),
        ({"groups": (0, 1, 1, 1)}, r"`groups` must divide .* but got \(0, 1, 1, 1\)"),
    ],
)
def test_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PyramidSqueezeAttention(**({"in_channels": 64, "out_channels": 64} | arguments))
