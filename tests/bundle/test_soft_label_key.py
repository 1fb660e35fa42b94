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

"""The fingerprint of a teacher team, and the teacher that it is of."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from monai_kd.bundle import live_or_stored_teacher, soft_label_key, trained_teachers
from monai_kd.networks import StoredSoftLabel
from monai_kd.transforms.soft_label_file import key_differences


@pytest.fixture
def files(tmp_path) -> dict[str, Path]:
    made = {name: tmp_path / f"{name}.pt" for name in ("teacher", "f", "b")}
    for name, path in made.items():
        path.write_text(name)
    return made


@pytest.mark.parametrize("used", [(True, True), (True, False), (False, True), (False, False)])
def test_it_names_those_that_are_asked(files, used):
    switches = {"f": used[0], "b": used[1], "sc": True}
    assistants = {"f": files["f"], "b": files["b"]}
    found = json.loads(soft_label_key(True, files["teacher"], assistants, switches, 7))
    asked = [name for name in ("f", "b") if switches[name]]
    weights = ["weights of teacher", *[f"weights of assistant {name}" for name in asked]]
    assert [name for name in found if name.startswith("weights")] == weights
    assert len({found[name] for name in weights}) == len(weights)
    switched = {f"use_{name}": on for name, on in switches.items()}
    assert found.items() >= (switched | {"max_candidates": 7}).items()


def test_what_differs_is_told_by_its_name(files):
    one = soft_label_key(True, files["teacher"], {"f": files["f"]}, {"f": True, "sc": True})
    files["f"].write_text("trained again")
    two = soft_label_key(True, files["teacher"], {"f": files["f"]}, {"f": True, "sc": False})
    said = key_differences(one, two)
    assert said.startswith("weights of assistant f '")
    assert said.endswith(", use_sc True and not False")
    assert key_differences(one, one) == ""


def test_no_file_is_opened_where_none_is_needed():
    assert soft_label_key(False, "none.pt", {"f": "none.pt"}, {"f": True}) is False


def test_stored_soft_labels_need_no_network():
    teacher = live_or_stored_teacher(True, network=None, checkpoint="none.pt")
    assert isinstance(teacher.network, StoredSoftLabel)
    logits = teacher({"soft_label": torch.full((1, 2, 2, 2), 0.5)}).logits
    assert logits.shape == (1, 2, 2, 2)


def test_others_are_asked():
    network = nn.Conv2d(1, 2, 1)
    assert live_or_stored_teacher(False, network).network is network


def test_teachers_of_one_architecture_have_weights_of_their_own(tmp_path):
    for name in ("one", "two"):
        torch.save(nn.Conv2d(1, 2, 1).state_dict(), tmp_path / f"{name}.pt")
    one, two = trained_teachers(["one", "two"], lambda: nn.Conv2d(1, 2, 1), str(tmp_path))
    assert not torch.equal(one.network.weight, two.network.weight)
