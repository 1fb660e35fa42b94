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

"""Settings that come from the weights."""

from __future__ import annotations

import pytest
import torch

from monai_kd.bundle import as_trained
from monai_kd.networks.weights_facts import with_facts


def test_setting_of_the_training(tmp_path):
    path = tmp_path / "model.pt"
    torch.save(with_facts(torch.nn.Linear(1, 1).state_dict(), {"image_size": [96, 96]}), path)
    assert as_trained(path, "image_size", [352, 352]) == [96, 96]
    assert as_trained(path, "window", "liver") == "liver"


def test_weights_of_another_tool_and_weights_that_are_not_there(tmp_path):
    torch.save({"weight": torch.zeros(1)}, tmp_path / "other.pt")
    assert as_trained(tmp_path / "other.pt", "image_size", [352, 352]) == [352, 352]
    assert as_trained(tmp_path / "none.pt", "image_size", [352, 352]) == [352, 352]


def test_damaged_file_is_named(tmp_path):
    (tmp_path / "model.pt").write_bytes(b"PK\x03\x04 half a file")
    with pytest.raises(ValueError, match=r"weights must be a file .* but got .*model.pt: .*train it again"):
        as_trained(tmp_path / "model.pt", "image_size")
