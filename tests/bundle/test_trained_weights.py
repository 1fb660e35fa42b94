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

from monai_kd.bundle import trained_weights
from monai_kd.networks.weights_facts import with_facts


def test_file_is_given_back(tmp_path):
    (tmp_path / "model.pt").touch()
    assert trained_weights(tmp_path / "model.pt", "nothing") == str(tmp_path / "model.pt")


@pytest.mark.parametrize("name", ["model.pt", "."])
def test_missing_file_is_named_with_what_makes_it(tmp_path, name):
    with pytest.raises(FileNotFoundError, match=rf"trained first, but got no file {tmp_path}.*; `make train` makes it"):
        trained_weights(tmp_path / name, "`make train`")


@pytest.fixture
def weights(tmp_path):
    """Trained at 96 x 96 with two classes."""
    facts = {"image_size": [96, 96], "classes": ["organ", "tumor"], "window": [40, 400]}
    torch.save(with_facts(torch.nn.Linear(1, 1).state_dict(), facts), tmp_path / "model.pt")
    return tmp_path / "model.pt"


def test_settings_of_the_training_pass_without_a_word(weights, caplog):
    settings = {"image_size": (96, 96), "classes": ["organ", "tumor"], "amp": True}
    assert trained_weights(weights, "nothing", settings) == str(weights)
    assert not caplog.records


def test_other_size_is_warned_of(weights, caplog):
    trained_weights(weights, "nothing", {"image_size": [352, 352]})
    assert "`image_size` is [352, 352], but" in caplog.text
    assert "was trained with [96, 96]: results may be worse. Leave --image_size out" in caplog.text


@pytest.mark.parametrize(("name", "value"), [("classes", ["tumor", "organ"]), ("window", [50, 400])])
def test_other_meaning_is_refused(weights, name, value):
    with pytest.raises(
        ValueError, match=rf"`{name}` must be \[.*model.pt was trained, but got \[.*; leave --{name} out"
    ):
        trained_weights(weights, "nothing", {name: value})
