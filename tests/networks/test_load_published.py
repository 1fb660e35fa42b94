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

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from monai_kd.networks.load_published import load_published


def rename(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.replace("fc.", ""): value for name, value in weights.items()}


def load(network: nn.Module, path: Path) -> None:
    load_published(network, path, rename, argument="weights", content="one layer")


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_names_become_ours(tmp_path: Path, prefix: str) -> None:
    source, network, path = nn.Linear(3, 2), nn.Linear(3, 2), tmp_path / "layer.pth"
    torch.save({f"{prefix}fc.{name}": value for name, value in source.state_dict().items()}, path)
    load(network, path)
    assert torch.equal(network.weight, source.weight)
    assert torch.equal(network.bias, source.bias)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"fc.weight": torch.zeros(2, 3)}, "`weights` must hold one layer, but .*differs.*Missing key.*bias"),
        ({"fc.weight": torch.zeros(2, 4), "fc.bias": torch.zeros(2)}, "size mismatch for weight"),
        ({"fc.weight": torch.zeros(2, 3), "fc.bias": torch.zeros(2), "x": torch.zeros(1)}, "Unexpected key.*x"),
        ({"epoch": 3, "state_dict": {}}, "`weights` must hold a state dict, but got a dict of epoch, state_dict in"),
        ({1: torch.zeros(1)}, "`weights` must hold a state dict, but got a dict of 1 in"),
        ({}, "`weights` must hold a state dict, but got a dict of nothing in"),
        ([1, 2], "`weights` must hold a state dict, but got a list in"),
    ],
    ids=["missing", "shape", "unexpected", "nested", "numbered", "empty", "list"],
)
def test_file_of_something_else(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "layer.pth")
    with pytest.raises(ValueError, match=f"(?s){message}"):
        load(nn.Linear(3, 2), tmp_path / "layer.pth")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda value: value.long(), "weight of torch.int64 for torch.float32; bias of torch.int64"),
        (lambda value: value.to(torch.complex64), "weight of torch.complex64 for torch.float32"),
        (lambda value: value * float("nan"), "weight with NaN or infinity; bias with"),
        (lambda value: value / 0, "weight with NaN or infinity"),
    ],
    ids=["integer", "complex", "nan", "infinite"],
)
def test_values_that_are_no_weights(tmp_path: Path, change: Callable, message: str) -> None:
    network = nn.Linear(3, 2)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    torch.save({f"fc.{name}": change(value) for name, value in before.items()}, tmp_path / "layer.pth")
    with pytest.raises(ValueError, match=f"`weights` must hold one layer, but .*differs. {message}"):
        load(network, tmp_path / "layer.pth")
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_names_that_cannot_be_renamed(tmp_path: Path) -> None:
    def halves(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        return {name: value.chunk(2)[0] for name, value in weights.items()}

    torch.save({"fc.weight": torch.tensor(1.0)}, tmp_path / "layer.pth")
    with pytest.raises(ValueError, match="`weights` must hold one layer, but .*differs. chunk expects"):
        load_published(nn.Linear(3, 2), tmp_path / "layer.pth", halves, argument="weights", content="one layer")


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="`weights` must be a local file with one layer, but got .*nowhere"):
        load(nn.Linear(3, 2), tmp_path / "nowhere.pth")


class Code:
    """Runs something when it is unpickled."""

    def __reduce__(self) -> tuple:
        return (Path.touch, (Path(self.target),))


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    code = Code()
    code.target = tmp_path / "was-run"
    torch.save(code, tmp_path / "layer.pth")
    with pytest.raises(ValueError, match="`weights` must hold weights alone, but .* is damaged or needs code"):
        load(nn.Linear(3, 2), tmp_path / "layer.pth")
    assert not code.target.exists()


def test_damaged_file(tmp_path: Path) -> None:
    (tmp_path / "layer.pth").touch()
    with pytest.raises(ValueError, match="is damaged or needs code to be run: EOFError"):
        load(nn.Linear(3, 2), tmp_path / "layer.pth")
    (tmp_path / "layer.pth").write_bytes(b"PK\x03\x04 half a zip")
    with pytest.raises(ValueError, match="is damaged or needs code to be run"):
        load(nn.Linear(3, 2), tmp_path / "layer.pth")
