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

"""Damage that `torch.load` does not see."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from monai_kd.bundle import trained_weights
from monai_kd.networks import Teacher
from monai_kd.networks.check_whole import check_whole
from monai_kd.networks.load_network import load_torchscript
from monai_kd.networks.load_published import load_published
from monai_kd.networks.load_weights import load_weights


def network() -> torch.nn.Module:
    return torch.nn.Linear(100, 10)


@pytest.fixture
def weights(tmp_path) -> Path:
    path = tmp_path / "model.pt"
    torch.save(network().state_dict(), path)
    return path


def flip(path: Path) -> Path:
    """One bit of a weight."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    return path


def test_whole_file_passes_and_is_read_once(weights, monkeypatch):
    check_whole(weights)
    monkeypatch.setattr("zipfile.ZipFile.testzip", lambda self: pytest.fail("it is read again"))
    check_whole(weights)


def test_flipped_bit_is_found(weights):
    check_whole(weights)
    torch.load(flip(weights), weights_only=True)  # without an error; when this fails, the check can go
    for _ in range(2):
        with pytest.raises(ValueError, match="model/data/0 in it has another checksum"):
            check_whole(weights)


@pytest.mark.parametrize("start", [0.1, 0.3, 0.5, 0.7])
def test_hole_of_zeros_is_found(weights, start):
    """As a loss of power leaves it; some holes hide the directory of the file, which `torch.load` sees."""
    content = bytearray(weights.read_bytes())
    first = int(start * len(content))
    content[first : first + 600] = bytes(600)
    weights.write_bytes(content)
    with pytest.raises(ValueError, match="checksum|damaged|header|zip"):
        check_whole(weights)


def test_file_without_checksums_passes(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(network().state_dict(), tmp_path / "model.pt")
    finally:
        torch.serialization.set_crc32_options(True)
    check_whole(tmp_path / "model.pt")


@pytest.mark.parametrize("content", [b"", b"no zip", bytes(1000)])
def test_file_of_another_form_is_for_its_reader(tmp_path, content):
    (tmp_path / "model.pt").write_bytes(content)
    check_whole(tmp_path / "model.pt")


def test_every_reader_of_weights_refuses(weights, tmp_path):
    flip(weights)
    with pytest.raises(
        ValueError,
        match=r"`checkpoint` must hold weights, but got .*model.pt, which is damaged: model/data/0 in it has",
    ):
        load_weights(network(), weights)
    with pytest.raises(ValueError, match="which is damaged"):
        Teacher(network(), checkpoint=weights)
    with pytest.raises(
        ValueError, match=r"model.pt is damaged or needs code to be run: model/data/0 in it has another"
    ):
        load_published(network(), weights, dict, "encoder_weights", "a layer")
    with pytest.raises(
        ValueError, match=r"weights must be whole, but got .*model.pt, which is damaged: .*, or `make` makes it"
    ):
        trained_weights(weights, "`make`")


def test_torchscript_is_compared_too(tmp_path):
    path = tmp_path / "model.ts"
    torch.jit.save(torch.jit.script(network()), path)
    load_torchscript(path)
    with pytest.raises(ValueError, match=r"`network` must be a whole file, but got .*model.ts, which is damaged: "):
        load_torchscript(flip(path))


def test_link_to_another_file_is_another_file(weights, tmp_path):
    check_whole(weights)
    state = weights.stat()
    other = tmp_path / "other.pt"
    other.write_bytes(flip(weights).read_bytes())
    os.replace(other, weights)
    os.utime(weights, ns=(state.st_atime_ns, state.st_mtime_ns))
    with pytest.raises(ValueError, match="checksum|damaged|header|zip"):
        check_whole(weights)
