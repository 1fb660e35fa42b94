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

import json

import pytest

from monai_kd.data import folder_cases


def fill(folder, names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).touch()


@pytest.mark.parametrize("labels", ["labels", "masks", "segmentations"])
def test_pairs_by_stem_in_any_format(tmp_path, labels):
    fill(tmp_path / "images", ["c.nii.gz", "a.nii", "v1.2.nrrd", ".DS_Store", "notes.txt"])
    fill(tmp_path / "images" / "series", ["1.dcm", "2.dcm"])
    fill(tmp_path / labels, ["a.nii.gz", "c.nii.gz", "v1.2.nrrd", "series.nii.gz"])
    cases = folder_cases(tmp_path)
    assert [case["case"] for case in cases] == ["a", "c", "series", "v1.2"]
    assert cases[2] == {
        "image": str(tmp_path / "images" / "series"),
        "label": str(tmp_path / labels / "series.nii.gz"),
        "case": "series",
    }
    assert cases[0]["label"].endswith("a.nii.gz")
    assert [case["case"] for case in folder_cases(tmp_path, exclude=["c", "series"])] == ["a", "v1.2"]


@pytest.mark.parametrize("nested", [True, False])
def test_split_of_a_table(tmp_path, nested):
    fill(tmp_path / "images", ["a.nii", "b.nii", "c.nii"])
    fill(tmp_path / "masks", ["a.nii", "b.nii", "c.nii"])
    rows = [{"case": "a", "split": "train"}, {"case": "b", "split": "validation"}, {"case": "c", "split": "train"}]
    (tmp_path / "cases.json").write_text(json.dumps({"cases": rows} if nested else rows))
    assert [case["case"] for case in folder_cases(tmp_path, split="train")] == ["a", "c"]
    assert [case["case"] for case in folder_cases(tmp_path, split="validation")] == ["b"]
    assert len(folder_cases(tmp_path)) == 3
    with pytest.raises(ValueError, match="`split` must be one of train, validation in .*, but got 'test'"):
        folder_cases(tmp_path, split="test")


def test_official_split_of_headneck(shared_data):
    splits = [folder_cases(shared_data / "ct-headneck", split=name) for name in ("train", "validation")]
    assert [len(split) for split in splits] == [56, 11]
    assert not {case["case"] for case in splits[0]} & {case["case"] for case in splits[1]}


def test_images_alone(tmp_path):
    fill(tmp_path / "images", ["a.nii"])
    assert folder_cases(tmp_path, with_labels=False) == [{"image": str(tmp_path / "images" / "a.nii"), "case": "a"}]


def test_guards(tmp_path):
    with pytest.raises(FileNotFoundError, match="`folder` must hold images/, but got"):
        folder_cases(tmp_path)
    fill(tmp_path / "images", ["notes.txt"])
    with pytest.raises(FileNotFoundError, match="`folder` must hold cases, but got"):
        folder_cases(tmp_path)
    fill(tmp_path / "images", ["a.nii", "b.nii"])
    with pytest.raises(FileNotFoundError, match=r"must hold one of labels, masks.*, but got \[\] .*with_labels=False"):
        folder_cases(tmp_path)
    fill(tmp_path / "labels", ["b.nii", "z.nii"])
    with pytest.raises(ValueError, match=r"the same stems, but got only one of both for \['a', 'z'\]"):
        folder_cases(tmp_path)
    with pytest.raises(FileNotFoundError, match="`split` needs .*cases.json"):
        folder_cases(tmp_path, split="train")
    fill(tmp_path / "images", ["a.nii.gz"])
    with pytest.raises(ValueError, match="a stem must occur once, but got .*a.nii and .*a.nii.gz"):
        folder_cases(tmp_path)


def test_unknown_case_to_exclude(tmp_path):
    fill(tmp_path / "images", ["a.nii", "b.nii"])
    with pytest.raises(ValueError, match="`exclude` must name cases in .*images, but got A, c.nii"):
        folder_cases(tmp_path, with_labels=False, exclude=["a", "c.nii", "A"])
