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
from torch.nn import functional as F

from monai_kd.networks.blocks import CascadedFusion
from monai_kd.networks.nets.polyp_pvt import rename_published


def _maps(channels: int = 3, dtype: torch.dtype = torch.float64) -> list[torch.Tensor]:
    return [torch.randn(2, channels, size, size + size // 2, dtype=dtype) for size in (2, 4, 8)]


def _fusion(channels: int = 3) -> CascadedFusion:
    fusion = CascadedFusion(channels).double().eval()
    for module in fusion.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.3), nn.init.uniform_(module.running_var, 0.5, 1.5)
    return fusion


def test_equals_released_code(shared_parity: Path) -> None:
    """KDAS lib/pvt.py:27-57, the CFM of Polyp-PVT with 8 channels; the loss is the mean of the squares."""
    cases = json.loads((shared_parity / "cases.json").read_text())["cases"]
    case = next(case for case in cases if case["id"] == "polyppvt/CFM8_mean_sq")
    with np.load(shared_parity / case["npz"]) as arrays:
        tensors = {name: torch.from_numpy(arrays[name]) for name in arrays}
    weights = rename_published({f"CFM.{k.removeprefix('W.')}": v for k, v in tensors.items() if k.startswith("W.")})
    fusion = CascadedFusion(8).eval()
    fusion.load_state_dict({name.removeprefix("fusion."): value for name, value in weights.items()})
    maps = {name: tensors[name].requires_grad_() for name in ("x1", "x2", "x3")}
    fused = fusion(*maps.values())
    loss = fused.square().mean()
    loss.backward()
    assert list(fused.shape) == case["extra"]["out_shape"]
    assert loss.item() == pytest.approx(case["loss"], rel=1e-5)
    for name, x in maps.items():
        assert x.grad.norm().item() == pytest.approx(case["grad_norms"][name], rel=1e-4)
        torch.testing.assert_close(x.grad, tensors[f"grad_{name}"], rtol=1e-4, atol=1e-9)


def _layer(x: torch.Tensor, layer: nn.Module) -> torch.Tensor:
    norm = layer.adn.N
    x = F.conv2d(x, layer.conv.weight, padding=1)
    return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias)


def _doubled(x: torch.Tensor) -> torch.Tensor:
    """The corners stay corners: pixel i of 2 n reads i (n - 1) / (2 n - 1)."""
    for dim in (2, 3):
        n = x.shape[dim]
        place = torch.arange(2 * n, dtype=x.dtype) * (n - 1) / (2 * n - 1)
        lower = place.floor().long().clamp(max=n - 2)
        shape = [-1 if d == dim else 1 for d in range(4)]
        part = (place - lower).reshape(shape)
        x = x.index_select(dim, lower) * (1 - part) + x.index_select(dim, lower + 1) * part
    return x


def test_value() -> None:
    fusion = _fusion()
    deep, middle, shallow = _maps()
    carried = torch.cat(
        [_layer(_doubled(deep), fusion.gate_deep_middle) * middle, _layer(_doubled(deep), fusion.carry_deep)], dim=1
    )
    carried = _layer(carried, fusion.merge_middle)
    gated = _layer(_doubled(_doubled(deep)), fusion.gate_deep_shallow) * shallow
    gated = gated * _layer(_doubled(middle), fusion.gate_middle_shallow)
    x = torch.cat([gated, _layer(_doubled(carried), fusion.carry_middle)], dim=1)
    expected = _layer(_layer(x, fusion.merge_shallow), fusion.reduce)
    torch.testing.assert_close(fusion(deep, middle, shallow), expected)


def test_shallow_map_passes_the_gates_only() -> None:
    """Linear in the shallow map: what is deep decides how much of it is seen."""
    fusion = _fusion()
    deep, middle, shallow = _maps()
    nothing = fusion(deep, middle, torch.zeros_like(shallow))
    once, twice = fusion(deep, middle, shallow) - nothing, fusion(deep, middle, 2 * shallow) - nothing
    torch.testing.assert_close(twice, 2 * once)


def test_gradient() -> None:
    fusion = _fusion(2).requires_grad_(False)
    maps = [torch.randn(1, 2, size, size, dtype=torch.float64, requires_grad=True) for size in (1, 2, 4)]
    assert torch.autograd.gradcheck(fusion, maps)
