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

from monai_kd.data import kits19_cases


def publish(folder, number, imaging=True, segmentation=True):
    case = folder / f"case_{number:05d}"
    case.mkdir(parents=True)
    for name, there in (("imaging", imaging), ("segmentation", segmentation)):
        if there:
            (case / f"{name}.nii.gz").touch()


@pytest.mark.parametrize("inside", ["", "data"])
def test_layout_as_published(tmp_path, inside):
    for number in range(6):
        publish(tmp_path / inside, number, segmentation=number < 4)
    (tmp_path / inside / "kits.json").touch()
    cases = kits19_cases(tmp_path, exclude=["case_00002"])
    assert [case["case"] for case in cases] == ["case_00000", "case_00001", "case_00003"]
    assert cases[1] == {
        "image": str(tmp_path / inside / "case_00001" / "imaging.nii.gz"),
        "label": str(tmp_path / inside / "case_00001" / "segmentation.nii.gz"),
        "case": "case_00001",
    }
    test = kits19_cases(tmp_path, split="test")
    assert [(case["case"], sorted(case)) for case in test] == [
        ("case_00004", ["case", "image"]),
        ("case_00005", ["case", "image"]),
    ]


def test_guards(tmp_path):
    with pytest.raises(FileNotFoundError, match="`folder` must hold case_00000 .* of KiTS19's train set"):
        kits19_cases(tmp_path)
    publish(tmp_path, 0)
    publish(tmp_path, 1, imaging=False)  # the repository carries the labels only
    publish(tmp_path, 2, imaging=False)
    with pytest.raises(FileNotFoundError, match="but got none in 2 of 3: case_00001, case_00002; .*get_imaging"):
        kits19_cases(tmp_path)
    with pytest.raises(ValueError, match="`split` must be train or test, but got 'val'"):
        kits19_cases(tmp_path, split="val")


LAYOUTS = {
    "kits21/data": "aggregated_MAJ_seg.nii.gz",
    "dataset": "segmentation.nii.gz",  # KiTS23
}


@pytest.mark.parametrize("inner", LAYOUTS)
@pytest.mark.parametrize("given", ["", "inner"])
def test_layouts_of_later_challenges(tmp_path, inner, given):
    for number in range(2):
        publish(tmp_path / inner, number, segmentation=False)
        (tmp_path / inner / f"case_0000{number}" / LAYOUTS[inner]).touch()
    folder = tmp_path / inner if given else tmp_path
    cases = kits19_cases(folder)
    assert [case["case"] for case in cases] == ["case_00000", "case_00001"]
    assert cases[0]["label"] == str(tmp_path / inner / "case_00000" / LAYOUTS[inner])
    with pytest.raises(FileNotFoundError, match="KiTS19's test set.*but got 2 cases with segmentation.nii.gz or agg"):
        kits19_cases(folder, split="test")


def test_layouts_that_are_not_whole(tmp_path):
    publish(tmp_path, 0, segmentation=False)
    (tmp_path / "case_00000" / "segmentations").mkdir()
    with pytest.raises(FileNotFoundError, match="a case of KiTS21 must have aggregated_MAJ.*, but got only seg"):
        kits19_cases(tmp_path)
    for name in ("segmentation.nii.gz", "aggregated_MAJ_seg.nii.gz"):
        (tmp_path / "case_00000" / name).touch()
    with pytest.raises(ValueError, match="must have one of .* but got both in .*case_00000"):
        kits19_cases(tmp_path)
    with pytest.raises(ValueError, match="`exclude` must name cases as case_00000, but got case_0, not in"):
        kits19_cases(tmp_path, exclude=["case_0"])
