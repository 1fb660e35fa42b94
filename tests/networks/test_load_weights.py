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

"""Weights from every kind of file, and what no file may do."""

from __future__ import annotations

import os
import random
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from monai_kd.networks.load_weights import load_weights


def make_network(channels: int = 4) -> nn.Module:
    return nn.Sequential(nn.Conv2d(1, channels, 3), nn.BatchNorm2d(channels), nn.Conv2d(channels, 2, 1))


@pytest.fixture
def trained() -> nn.Module:
    network = make_network()
    network[1].running_mean.fill_(3.0)
    return network


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values()))


def save(content: Any, folder: Path, name: str = "model.pt") -> Path:
    torch.save(content, folder / name)
    return folder / name


class TestForms:
    def check(self, trained: nn.Module, path: Path, **kwargs: Any) -> None:
        network = make_network()
        assert not same(network, trained)
        load_weights(network, path, **kwargs)
        assert same(network, trained)

    def test_state_dict(self, trained, tmp_path):
        self.check(trained, save(trained.state_dict(), tmp_path))
        self.check(trained, str(save(dict(trained.state_dict()), tmp_path)))

    @pytest.mark.parametrize("key", ["model", "network", "net", "state_dict", "student", "teacher"])
    def test_entry_under_a_usual_name(self, trained, tmp_path, key):
        self.check(trained, save({key: trained.state_dict(), "epoch": 3}, tmp_path))

    def test_entry_under_a_name_that_is_given(self, trained, tmp_path):
        path = save({"ema": trained.state_dict(), "model": make_network().state_dict()}, tmp_path)
        self.check(trained, path, key="ema")

    def test_checkpoint_of_a_trainer(self, trained, tmp_path):
        optimizer = torch.optim.Adam(trained.parameters())
        trained(torch.zeros(1, 1, 8, 8)).sum().backward()
        optimizer.step()
        content = {
            "optimizer": optimizer.state_dict(),
            "trainer": OrderedDict(epoch_length=4, max_epochs=2, iteration=8),
            "distillation": {"adapters": OrderedDict(weight=torch.zeros(1))},
            "network": trained.state_dict(),
        }
        self.check(trained, save(content, tmp_path))

    @pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
    def test_prefixes_of_wrapped_networks(self, trained, tmp_path, prefix):
        self.check(trained, save({prefix + name: value for name, value in trained.state_dict().items()}, tmp_path))

    @pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod."])
    def test_module_of_such_a_name_keeps_it(self, tmp_path, prefix):
        trained, network = (nn.ModuleDict({"module": nn.Linear(2, 2)}) for _ in range(2))
        load_weights(network, save({prefix + name: value for name, value in trained.state_dict().items()}, tmp_path))
        assert same(network, trained)

    def test_safetensors(self, trained, tmp_path):
        safetensors = pytest.importorskip("safetensors.torch")
        safetensors.save_file(trained.state_dict(), tmp_path / "model.safetensors")
        self.check(trained, tmp_path / "model.safetensors")

    def test_half_precision_becomes_that_of_the_network(self, trained, tmp_path):
        network = make_network()
        load_weights(network, save({name: value.half() for name, value in trained.state_dict().items()}, tmp_path))
        assert network[0].weight.dtype == torch.float32
        torch.testing.assert_close(network[0].weight, trained[0].weight, rtol=1e-3, atol=1e-3)


class Malice:
    """Makes a folder as it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")
class TestRefusals:
    def refused(self, path: Path, error: type[Exception], match: str, **kwargs: Any) -> None:
        network = make_network()
        before = {name: value.clone() for name, value in network.state_dict().items()}
        with pytest.raises(error, match=match):
            load_weights(network, path, **kwargs)
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())

    def test_missing(self, tmp_path):
        self.refused(
            tmp_path / "no.pt", FileNotFoundError, "`checkpoint` must be an existing file, but got .*no.pt; train"
        )
        self.refused(tmp_path, FileNotFoundError, "`checkpoint` must be an existing file")

    def test_code_is_not_run(self, trained, tmp_path):
        path = save({"model": trained.state_dict(), "extra": Malice(tmp_path / "made")}, tmp_path)
        self.refused(path, ValueError, "must hold weights alone, but got .*model.pt, which needs code to be run")
        assert not (tmp_path / "made").exists()
        torch.load(path, weights_only=False)  # what would have happened
        assert (tmp_path / "made").exists()

    def test_whole_network(self, trained, tmp_path):
        self.refused(
            save(trained, tmp_path), ValueError, r"save it again with `torch.save\(network.state_dict\(\), path\)`"
        )

    def test_no_state_dict(self, tmp_path):
        self.refused(save([torch.zeros(2)], tmp_path), ValueError, "must hold a state dict, but got list in .*model.pt")
        self.refused(
            save({"epoch": 3}, tmp_path), ValueError, r"must name the entry .* but got None; it has \['epoch'\]"
        )
        self.refused(save({}, tmp_path), ValueError, r"it has \[\]")

    def test_several_entries(self, trained, tmp_path):
        weights = trained.state_dict()
        path = save({"student": weights, "teacher": weights, 3: 4}, tmp_path)
        self.refused(path, ValueError, r"`checkpoint_key` must name .* got None; it has \['3', 'student', 'teacher'\]")
        self.refused(path, ValueError, "must name the entry of .* but got ema", key="ema")
        self.refused(path, ValueError, "must name the entry of .* but got 3", key=3)

    def test_other_architecture(self, tmp_path):
        path = save(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 2, 1)).state_dict(), tmp_path)
        self.refused(
            path, ValueError, r"weights of Sequential \(9 entries\), .* with \d that differ: 1.running_mean missing"
        )

    def test_other_width(self, tmp_path):
        path = save(make_network(6).state_dict(), tmp_path)
        expected = r"with 7 that differ: 0.weight of shape \(6, 1, 3, 3\) for \(4, 1, 3, 3\); .*; \.\.\.. Is it of"
        self.refused(path, ValueError, expected)

    @pytest.mark.parametrize("value", [float("nan"), float("inf")])
    def test_values_that_are_not_finite(self, trained, tmp_path, value):
        weights = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
        weights["0.weight"][0, 0, 0, 0] = value
        self.refused(save(weights, tmp_path), ValueError, "with 1 that differ: 0.weight with NaN or infinity")

    def test_infinity_that_the_network_has_itself(self, tmp_path):
        network = make_network()
        network.register_buffer("mask", torch.full((2, 2), -torch.inf).triu(1))
        load_weights(network, save(network.state_dict(), tmp_path))

    def test_empty_file_and_numbered_entries(self, tmp_path):
        (tmp_path / "empty.pt").touch()
        self.refused(tmp_path / "empty.pt", ValueError, "which is damaged: EOFError")
        self.refused(save({1: torch.zeros(1)}, tmp_path), ValueError, r"must name the entry .* it has \['1'\]")

    def test_unexpected_entries(self, trained, tmp_path):
        path = save(trained.state_dict() | {"head.weight": torch.zeros(1)}, tmp_path)
        self.refused(path, ValueError, "with 1 that differ: head.weight unexpected. Is it of another")

    @pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
    def test_damaged_in_any_way(self, trained, tmp_path, form):
        path = tmp_path / f"model.{'safetensors' if form == 'safetensors' else 'pt'}"
        if form == "safetensors":
            pytest.importorskip("safetensors.torch").save_file(trained.state_dict(), path)
        else:
            torch.save(trained.state_dict(), path, _use_new_zipfile_serialization=form == "zip")
        whole, draw = path.read_bytes(), random.Random(0)
        path.write_bytes(b"")
        self.refused(path, ValueError, "`checkpoint` must hold weights")
        for _ in range(60):
            start = draw.randrange(len(whole) - 8)
            damaged = [whole[:start], whole[:start] + draw.randbytes(8) + whole[start + 8 :], draw.randbytes(start)]
            path.write_bytes(draw.choice(damaged))
            try:
                load_weights(make_network(), path)  # of some damage nobody can know, as in a weight
            except ValueError as error:
                assert "`checkpoint`" in str(error)  # noqa: PT017


def test_weights_of_another_kind_are_refused(tmp_path):
    network = torch.nn.Linear(2, 1)
    torch.save({key: value.to(torch.int8) for key, value in network.state_dict().items()}, tmp_path / "int8.pt")
    with pytest.raises(ValueError, match=r"weight of torch\.int8 for torch\.float32"):
        load_weights(network, tmp_path / "int8.pt")
