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

from monai_kd.bundle.write_weights import write_weights


def test_full_disk_is_named_and_the_earlier_file_stays(tmp_path, full_disk):
    path = tmp_path / "models" / "model.pt"
    write_weights({"weight": torch.ones(1)}, path)
    message = r"weights must fit on the disk, but torch could not write them.*; make room: .*model.pt"
    with full_disk(900), pytest.raises(OSError, match=message):
        write_weights({"weight": torch.ones(4000)}, path)
    assert torch.load(path)["weight"].numel() == 1
    assert [file.name for file in path.parent.iterdir()] == ["model.pt"]


def test_other_errors_stay(tmp_path, monkeypatch):
    def fail(content, target):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        write_weights({}, tmp_path / "model.pt")
