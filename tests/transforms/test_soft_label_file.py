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

"""The file of a stored soft label, read as it was written."""

from __future__ import annotations

import pytest
import torch

from monai_kd.transforms.soft_label_file import (
    LOGITS,
    WEIGHTS_KEY,
    key_differences,
    read_soft_label,
    soft_label_path,
    stored_origin,
    write_soft_label,
)

pytest.importorskip("safetensors")


@pytest.mark.parametrize("channels", [1, 3])
def test_is_read_as_it_was_written(tmp_path, channels):
    image, label = torch.rand(3, 4, 4), torch.zeros(1, 4, 4)
    path = soft_label_path(tmp_path, image, label)
    logits = torch.randn(channels, 4, 4).half()
    write_soft_label(path, logits, {WEIGHTS_KEY: "1", "corrections": ""})
    assert stored_origin(path) == {WEIGHTS_KEY: "1", "corrections": ""}
    expected = logits.float().softmax(0) if channels > 1 else logits.float().sigmoid()
    assert torch.equal(read_soft_label(path), expected)
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_of_another_file_there_is_no_origin(tmp_path):
    from safetensors.torch import save_file

    other = tmp_path / "other.safetensors"
    assert stored_origin(other) == {}
    other.write_bytes(b"broken")
    assert stored_origin(other) == {}
    save_file({LOGITS: torch.zeros(1)}, str(other))
    assert stored_origin(other) == {}
    save_file({"weight": torch.zeros(1)}, str(other), {WEIGHTS_KEY: "1"})
    assert stored_origin(other) == {}


@pytest.mark.parametrize(("stored", "wanted"), [("1", "2"), ("5e1a", "77"), ("teacher", "[1]")])
def test_plain_keys_are_told_whole(stored, wanted):
    assert key_differences(stored, wanted) == f"{wanted} and {stored}"
