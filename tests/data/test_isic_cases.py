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

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monai_kd.data import isic_cases

FOLDERS = {
    "2017": ("ISIC-2017_{}_Data", "ISIC-2017_{}_Part1_GroundTruth"),
    "2018": ("ISIC2018_Task1-2_{}_Input", "ISIC2018_Task1_{}_GroundTruth"),
}


def write(folder: Path, year: str = "2017", split: str = "Training", stems: tuple[int, ...] = (0, 1, 2)) -> None:
    """A challenge as it is unpacked, with what else lies there."""
    images, masks = (folder / name.format(split) for name in FOLDERS[year])
    for place in (images, masks):
        place.mkdir(parents=True, exist_ok=True)
    for number in stems:
        pixels = np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(images / f"ISIC_{number:07d}.jpg")
        Image.fromarray(pixels).save(images / f"ISIC_{number:07d}_superpixels.png")
        Image.fromarray(255 * (pixels[..., 0] > 99).astype(np.uint8)).save(
            masks / f"ISIC_{number:07d}_segmentation.png"
        )
    (images / f"{images.name}_metadata.csv").write_text("image_id,age_approximate,sex\n")
    other = folder / f"ISIC-2017_{split}_Part2_GroundTruth"
    other.mkdir(exist_ok=True)
    (other / "ISIC_0000000_features.json").write_text("{}")


@pytest.mark.parametrize("year", ["2017", "2018"])
def test_published_layout(tmp_path, year):
    write(tmp_path / "below" / "here", year)
    cases = isic_cases(tmp_path)
    assert [case["case"] for case in cases] == [f"ISIC_{number:07d}" for number in range(3)]
    for case in cases:
        assert Path(case["image"]).name == f"{case['case']}.jpg"
        assert Path(case["label"]).name == f"{case['case']}_segmentation.png"
        assert case["dataset"] == {"2017": "ISIC-2017_Training", "2018": "ISIC2018_Training"}[year]


def test_splits_of_the_challenge(tmp_path):
    write(tmp_path)
    write(tmp_path, split="Validation", stems=(3,))
    write(tmp_path, split="Test_v2", stems=(4, 5))
    numbers = {split: [int(case["case"][-1]) for case in isic_cases(tmp_path, split)] for split in (None, "test")}
    assert numbers == {None: [4, 5, 0, 1, 2, 3], "test": [4, 5]}
    assert {case["dataset"] for case in isic_cases(tmp_path, "validation")} == {"ISIC-2017_Validation"}


def test_excluded_cases(tmp_path):
    write(tmp_path)
    assert [case["case"] for case in isic_cases(tmp_path, exclude=["ISIC_0000001"])] == ["ISIC_0000000", "ISIC_0000002"]
    with pytest.raises(ValueError, match="`exclude` must name images as ISIC_0000000, but got ISIC_0000009, not in"):
        isic_cases(tmp_path, exclude=["ISIC_0000009"])


def test_all_that_cannot_be_used_are_named_at_once(tmp_path):
    write(tmp_path)
    images, masks = (tmp_path / name.format("Training") for name in FOLDERS["2017"])
    (masks / "ISIC_0000000_segmentation.png").unlink()
    Image.new("L", (3, 3)).save(masks / "ISIC_0000001_segmentation.png")
    (images / "ISIC_0000002.jpg").write_bytes(b"none")
    with pytest.raises(ValueError, match="3 images in .* cannot be used") as error:
        isic_cases(tmp_path)
    text = str(error.value)
    assert "leave them out with exclude=['ISIC_0000000', ...] in the call that lists them" in text
    assert "`cases`, `test_cases` or `split` of configs/train.yaml:\n" in text
    assert "ISIC_0000000: " in text
    assert "has no mask" in text
    assert "8 x 6 and 3 x 3" in text
    assert len(isic_cases(tmp_path, exclude=["ISIC_0000000"], check=False)) == 2


def test_an_image_of_two_challenges_is_refused(tmp_path):
    write(tmp_path)
    write(tmp_path, "2018", stems=(2, 3))
    with pytest.raises(ValueError, match="ISIC_0000002: it is also .*; read one challenge at a time"):
        isic_cases(tmp_path)


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="must hold images in ISIC-2017_Training_Data or the like, but got"):
        isic_cases(tmp_path)
    write(tmp_path)
    with pytest.raises(FileNotFoundError, match="images of the split test in .* with ISIC-2017_Training"):
        isic_cases(tmp_path, "test")
    with pytest.raises(ValueError, match="`split` must be one of training, validation, test, or None for all, but got"):
        isic_cases(tmp_path, "Test")


def test_two_copies_are_refused(tmp_path):
    write(tmp_path / "one")
    write(tmp_path / "two", stems=(2, 3))
    with pytest.raises(ValueError, match="ISIC_0000002: .*two.*jpg is also .*one.*; read one copy") as error:
        isic_cases(tmp_path)
    assert "ISIC_0000003" not in str(error.value)
    assert len(isic_cases(tmp_path, exclude="ISIC_0000002")) == 3


def test_two_copies_of_the_masks_are_refused(tmp_path):
    write(tmp_path / "one", stems=(1,))
    name = FOLDERS["2017"][1].format("Training")
    shutil.copytree(tmp_path / "one" / name, tmp_path / "two" / name)
    with pytest.raises(ValueError, match="ISIC_0000001: .*two.*_segmentation.png is also .*one.*; read one copy"):
        isic_cases(tmp_path)


def test_links(tmp_path):
    """They are followed, not in circles, and one to what is there anyway is no copy."""
    write(tmp_path / "elsewhere")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "up").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "top").symlink_to(tmp_path)
    assert len(isic_cases(folder)) == 3
    (tmp_path / "A").symlink_to(tmp_path / "elsewhere" / FOLDERS["2017"][0].format("Training"))
    assert len(isic_cases(tmp_path)) == 3


def test_suffixes_in_any_case(tmp_path):
    write(tmp_path)
    images, masks = (tmp_path / name.format("Training") for name in FOLDERS["2017"])
    (images / "ISIC_0000000.jpg").rename(images / "ISIC_0000000.JPG")
    (images / "ISIC_0000001.jpg").rename(images / "ISIC_0000001.jpeg")
    (masks / "ISIC_0000002_segmentation.png").rename(masks / "ISIC_0000002_segmentation.PNG")
    assert [case["case"] for case in isic_cases(tmp_path)] == [f"ISIC_{number:07d}" for number in range(3)]
