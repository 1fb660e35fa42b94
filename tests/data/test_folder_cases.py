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
import unicodedata

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


def split_of(tmp_path, rows, names=("a", "b", "c")):
    fill(tmp_path / "images", [f"{name}.nii" for name in names])
    (tmp_path / "cases.json").write_text(json.dumps([{"case": case, "split": split} for case, split in rows]))
    return [case["case"] for case in folder_cases(tmp_path, split="train", with_labels=False)]


def test_all_that_is_wrong_in_the_table_in_one_error(tmp_path):
    rows = [("a", "train"), ("b", "trian"), ("a", "validation"), ("x", "train"), ("c", "Train"), ("y", "test")]
    with pytest.raises(
        ValueError, match=r"cases.json must name existing cases once and splits alike, but got:"
    ) as caught:
        split_of(tmp_path, rows)
    assert sorted(line.strip() for line in str(caught.value).splitlines()[1:]) == [
        "'Train': this split looks misspelt",
        "'train': this split looks misspelt",
        "'trian': this split looks misspelt",
        "a: it is there 2 times",
        "x: there is no such image",
    ]


@pytest.mark.parametrize("other", ["validation", "val", "test", "holdout", "fold_2", "trainval", "testA", "external"])
def test_other_splits_are_no_spelling_mistakes(tmp_path, other):
    assert split_of(tmp_path, [("a", "train"), ("b", other), ("z", other)]) == ["a"]  # z is kept elsewhere


@pytest.mark.parametrize("other", ["vaildation", "tset", "trainig", "validation ", "TRAIN"])
def test_spelling_mistakes(tmp_path, other):
    with pytest.raises(ValueError, match=f"'{other}': this split looks misspelt"):
        split_of(tmp_path, [("a", "train"), ("b", other)])


def test_images_without_a_split_are_counted(tmp_path, caplog):
    assert split_of(tmp_path, [("a", "train")]) == ["a"]
    assert caplog.messages == [f"{tmp_path / 'cases.json'} names no split of 2 images: b, c"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[{]", "must be JSON in UTF-8, but got"),
        ('{"a": "train"}', "must be a list of"),
        ('[{"case": "a"}]', 'must have the texts "case" and "split" in each row'),
        ('["a"]', 'must have the texts "case" and "split" in each row'),
    ],
)
def test_table_of_another_form(tmp_path, text, message):
    fill(tmp_path / "images", ["a.nii"])
    (tmp_path / "cases.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        folder_cases(tmp_path, split="train")


def test_byte_order_mark_and_names_of_macos(tmp_path):
    one, other = (unicodedata.normalize(form, "Müller") for form in ("NFC", "NFD"))
    fill(tmp_path / "images", [f"{other}.nii", "b.nii"])
    fill(tmp_path / "labels", [f"{one}.nii.gz", "b.nii"])
    rows = json.dumps([{"case": one, "split": "train"}, {"case": "b", "split": "test"}], ensure_ascii=False)
    (tmp_path / "cases.json").write_text(rows, encoding="utf-8-sig")
    (case,) = folder_cases(tmp_path, split="train")
    assert case["case"] == one
    assert case["image"].endswith(f"{other}.nii")
    assert [case["case"] for case in folder_cases(tmp_path, exclude=[other])] == ["b"]
