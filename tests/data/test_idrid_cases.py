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

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from monai_kd.data import idrid_cases
from monai_kd.transforms import LoadMask

PLACES = {"training": "a. Training Set", "test": "b. Testing Set"}


def part(folder: Path, split: str = "training") -> tuple[Path, Path]:
    """Where a split has its images and its masks."""
    part = folder / "A. Segmentation"
    masks = part / "2. All Segmentation Groundtruths" / PLACES[split] / "5. Optic Disc"
    return part / "1. Original Images" / PLACES[split], masks


def write(folder: Path, split: str = "training", numbers: tuple[int, ...] = (1, 2, 3)) -> None:
    """The data set as it is unpacked, with what else lies there; the mask is red on black, of a palette."""
    other = folder / "A. Segmentation" / "2. All Segmentation Groundtruths" / PLACES[split] / "3. Hard Exudates"
    grading = folder / "B. Disease Grading" / "1. Original Images" / PLACES[split]
    for place in (*part(folder, split), other, grading):
        place.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        pixels = np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        mask = Image.fromarray((pixels[..., 0] > 99).astype(np.uint8), "P")
        mask.putpalette([0, 0, 0, 255, 0, 0])
        images, masks = part(folder, split)
        Image.fromarray(pixels).save(images / f"IDRiD_{number:02d}.jpg")
        mask.save(masks / f"IDRiD_{number:02d}_OD.tif")
        mask.save(other / f"IDRiD_{number:02d}_EX.tif")
        Image.fromarray(pixels).save(grading / f"IDRiD_{number:03d}.jpg")
    (folder / "CC-BY-4.0.txt").write_text("terms")


def test_published_layout(tmp_path):
    write(tmp_path / "below" / "here")
    cases = idrid_cases(tmp_path)
    assert [case["case"] for case in cases] == ["IDRiD_01", "IDRiD_02", "IDRiD_03"]
    for number, case in enumerate(cases, 1):
        assert Path(case["image"]) == part(tmp_path / "below" / "here")[0] / f"{case['case']}.jpg"
        assert Path(case["label"]) == part(tmp_path / "below" / "here")[1] / f"{case['case']}_OD.tif"
        assert case["dataset"] == "IDRiD_Training"
        pixels = np.random.default_rng(number).integers(0, 256, (6, 8, 3), dtype=np.uint8)
        np.testing.assert_array_equal(LoadMask()(case["label"])[0], pixels[..., 0] > 99)
    assert idrid_cases(tmp_path / "below" / "here" / "A. Segmentation", check=False) == cases


def test_splits_of_the_challenge(tmp_path):
    write(tmp_path)
    write(tmp_path, "test", (4, 5))
    numbers = {split: [int(case["case"][-1]) for case in idrid_cases(tmp_path, split)] for split in (None, *PLACES)}
    assert numbers == {None: [1, 2, 3, 4, 5], "training": [1, 2, 3], "test": [4, 5]}
    assert {case["dataset"] for case in idrid_cases(tmp_path, "test")} == {"IDRiD_Test"}


def test_excluded_cases(tmp_path):
    write(tmp_path)
    assert [case["case"] for case in idrid_cases(tmp_path, exclude=["IDRiD_02"])] == ["IDRiD_01", "IDRiD_03"]
    with pytest.raises(ValueError, match="`exclude` must name images as IDRiD_01, but got IDRiD_001, not in"):
        idrid_cases(tmp_path, exclude=["IDRiD_001"])


def test_all_that_cannot_be_used_are_named_at_once(tmp_path):
    write(tmp_path)
    images, masks = part(tmp_path)
    (masks / "IDRiD_01_OD.tif").unlink()
    Image.new("L", (3, 3)).save(masks / "IDRiD_02_OD.tif")
    (images / "IDRiD_03.jpg").write_bytes(b"none")
    with pytest.raises(ValueError, match="3 images in .* cannot be used") as error:
        idrid_cases(tmp_path)
    text = str(error.value)
    assert "IDRiD_01: " in text
    assert "IDRiD_01.jpg has no mask " in text
    assert "8 x 6 and 3 x 3" in text
    assert len(idrid_cases(tmp_path, exclude=["IDRiD_01"], check=False)) == 2


def test_two_copies_are_refused(tmp_path):
    write(tmp_path / "one")
    write(tmp_path / "two", numbers=(3, 4))
    with pytest.raises(ValueError, match="IDRiD_03: .*two.*jpg is also .*one.*; read one copy at a time"):
        idrid_cases(tmp_path)


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="must hold images in A. Segmentation/1. Original .*, beside 2. All"):
        idrid_cases(tmp_path)
    write(tmp_path)
    with pytest.raises(FileNotFoundError, match="images of the split test in A. Segmentation"):
        idrid_cases(tmp_path, "test")
    with pytest.raises(ValueError, match="`split` must be one of training, test, or None for all, but got 'Test'"):
        idrid_cases(tmp_path, "Test")


def test_links(tmp_path):
    """They are followed, not in circles, and one to what is there anyway is no copy."""
    write(tmp_path / "elsewhere")
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "up").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "top").symlink_to(tmp_path)
    assert len(idrid_cases(folder)) == 3
    assert len(idrid_cases(tmp_path)) == 3


def test_suffixes_in_any_case(tmp_path):
    write(tmp_path)
    images, masks = part(tmp_path)
    (images / "IDRiD_01.jpg").rename(images / "IDRiD_01.JPG")
    (images / "IDRiD_02.jpg").rename(images / "IDRiD_02.jpeg")
    (masks / "IDRiD_03_OD.tif").rename(masks / "IDRiD_03_OD.TIFF")
    assert [case["case"] for case in idrid_cases(tmp_path)] == ["IDRiD_01", "IDRiD_02", "IDRiD_03"]
