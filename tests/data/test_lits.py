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

from monai_kd.data import lits_cases


def publish(folder, numbers, suffix=".nii", labels=True, prefix=""):
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        (folder / f"{prefix}volume-{number}{suffix}").touch()
        if labels:
            (folder / f"{prefix}segmentation-{number}{suffix}").touch()


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_batches_as_published(tmp_path, suffix):
    publish(tmp_path / "Training Batch 1", range(0, 28), suffix)
    publish(tmp_path / "Training Batch 2", range(28, 131), suffix)
    publish(tmp_path / "LITS-Challenge-Test-Data", range(70), ".nii", labels=False, prefix="test-")
    cases = lits_cases(tmp_path)
    assert [case["case"] for case in cases] == [f"volume-{number}" for number in range(131)]
    assert cases[28] == {
        "image": str(tmp_path / "Training Batch 2" / f"volume-28{suffix}"),
        "label": str(tmp_path / "Training Batch 2" / f"segmentation-28{suffix}"),
        "case": "volume-28",
    }
    test = lits_cases(tmp_path, split="test")
    assert len(test) == 70
    assert test[2] == {
        "image": str(tmp_path / "LITS-Challenge-Test-Data" / "test-volume-2.nii"),
        "case": "test-volume-2",
    }


def test_labels_in_a_folder_of_their_own_and_left_out_cases(tmp_path):
    publish(tmp_path / "volumes", [0, 1, 2], labels=False)
    publish(tmp_path / "both", [3])
    (tmp_path / "segmentations").mkdir()
    for number in (0, 2):
        (tmp_path / "segmentations" / f"segmentation-{number}.nii").touch()
    (tmp_path / "both" / "._volume-9.nii").touch()  # what a Mac leaves behind
    cases = lits_cases(tmp_path, exclude=["volume-1", "volume-3"])
    assert [case["case"] for case in cases] == ["volume-0", "volume-2"]
    assert cases[1]["label"] == str(tmp_path / "segmentations" / "segmentation-2.nii")


def test_guards(tmp_path):
    with pytest.raises(FileNotFoundError, match="`folder` must hold volume-N.nii .*, but got .* without any"):
        lits_cases(tmp_path)
    publish(tmp_path, [0, 1, 2, 3], labels=False)
    publish(tmp_path, [0])
    with pytest.raises(ValueError, match="every volume must have a segmentation, but got none for volume-1, volume-2"):
        lits_cases(tmp_path)
    with pytest.raises(FileNotFoundError, match="must hold test-volume-N.nii"):
        lits_cases(tmp_path, split="test")
    publish(tmp_path, [0, 1], suffix=".nii.gz")
    with pytest.raises(ValueError, match=r"each number of LiTS once, but got \[.*volume-0.nii', .*gz'\] and 2 more"):
        lits_cases(tmp_path)
    with pytest.raises(ValueError, match="`split` must be train or test, but got 'val'"):
        lits_cases(tmp_path, split="val")


def test_suffixes_in_any_case(tmp_path):
    publish(tmp_path, [0])
    publish(tmp_path, [1], ".NII.GZ")
    assert [case["case"] for case in lits_cases(tmp_path)] == ["volume-0", "volume-1"]
