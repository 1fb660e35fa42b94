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

"""CT slices are told from the other objects that archives deliver."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from monai.transforms import LoadImage

from monai_kd.data import find_volumes, scan_cases
from monai_kd.transforms import LoadSlice
from monai_kd.transforms.dicom_files import dicom_files, holds_ct, is_dicom
from tests.transforms.dicom import HU, SOP_CLASSES, localizer, write_other, write_series

APPLE = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X" + bytes(4000)
WITHOUT_PIXELS = ("RT Structure Set", "X-Ray Radiation Dose SR", "Encapsulated PDF")


def without_pixels(number, dataset):
    del dataset.PixelData, dataset.Rows, dataset.Columns


def write_kind(file: Path, kind: str) -> Path:
    edit = without_pixels if kind in WITHOUT_PIXELS else None
    return write_other(file, kind, localizer if kind == "localizer" else edit)


@pytest.mark.parametrize("kind", [*SOP_CLASSES, "localizer"])
@pytest.mark.parametrize("suffix", [".dcm", ""])
@pytest.mark.parametrize("beside", [True, False])
def test_other_objects_are_passed_over(tmp_path, caplog, kind, suffix, beside):
    """In a folder of their own or beside the slices, by inference and by training, with one line that counts them."""
    write_series(tmp_path / "ct")
    folder = tmp_path / ("ct" if beside else "other")
    for number in (1, 2):
        write_kind(folder / f"a{number}{suffix}", kind)
    assert [item["case"] for item in find_volumes(tmp_path)] == ["ct"]
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path}: passed over what is no CT slice: {kind} (2)."
    ]
    np.testing.assert_array_equal(LoadImage()(tmp_path / "ct"), HU)
    np.testing.assert_array_equal(LoadSlice().volume(tmp_path / "ct").array, HU)


def test_training_counts_them_over_all_cases_once(tmp_path, caplog):
    cases = []
    for name in ("a", "b"):
        folder = tmp_path / name
        for file in write_series(folder):
            file.with_name("._" + file.name).write_bytes(APPLE)
        write_kind(folder / "rs.dcm", "RT Structure Set")
        cases.append({"image": str(folder), "case": name})
    expected = "2 cases: passed over what is no CT slice: RT Structure Set (2), macOS ._ files (12)."
    for _ in range(2):  # read, and from the cache
        caplog.clear()
        scans = scan_cases(cases, progress=False, cache_dir=tmp_path)
        assert [scan["num_slices"] for scan in scans] == [6, 6]
        assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [expected]


def test_tree_of_an_archive(tmp_path, caplog):
    """A disc: DICOMDIR, files without suffix, a folder for each series, and what macOS leaves."""
    for number, file in enumerate(write_series(tmp_path / "DICOM" / "S1")):
        file.rename(file.with_name(f"I{number}"))
    (tmp_path / "DICOMDIR").write_bytes(bytes(128) + b"DICM" + bytes(100))
    (tmp_path / "DICOM" / "S1" / "._I0").write_bytes(APPLE)
    (tmp_path / "DICOM" / "S1" / "VERSION").write_text("1.0")
    write_kind(tmp_path / "DICOM" / "S2" / "I0", "Segmentation")
    write_kind(tmp_path / "DICOM" / "S3" / "I0", "X-Ray Radiation Dose SR")
    assert [item["case"] for item in find_volumes(tmp_path)] == ["DICOM_S1"]
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.endswith(": DICOMDIR (1), Segmentation (1), X-Ray Radiation Dose SR (1), macOS ._ files (1).")


def test_colour_picture_of_the_scanner_is_passed_over(tmp_path, caplog):
    def page(number, dataset):
        del dataset.ImagePositionPatient
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
        dataset.PixelData = bytes(240)

    write_series(tmp_path / "ct")
    write_other(tmp_path / "page" / "a.dcm", "CT Image", page)
    assert [item["case"] for item in find_volumes(tmp_path)] == ["ct"]
    assert "colour picture (1)" in caplog.text


def test_nothing_but_other_objects(tmp_path):
    write_kind(tmp_path / "seg" / "a.dcm", "Segmentation")
    with pytest.raises(FileNotFoundError, match=r"but got none in .*, only Segmentation \(1\); of a DICOM series"):
        find_volumes(tmp_path)
    with pytest.raises(
        RuntimeError, match=r"must hold CT slices, but got Segmentation \(1\) in .*seg; give its folder"
    ):
        LoadSlice()(tmp_path / "seg", 0)


def test_pattern_leaves_a_damaged_series_out(tmp_path):
    write_series(tmp_path / "good")
    write_series(tmp_path / "bad")[2].unlink()
    with pytest.raises(ValueError, match=r"equal gaps.*To leave the folder out, choose others by `pattern`"):
        find_volumes(tmp_path)
    assert [item["case"] for item in find_volumes(tmp_path, "good")] == ["good"]


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>" * 20, bytes(500), b"\xff" * 500])
def test_file_that_is_no_dicom_is_named(tmp_path, content):
    files = write_series(tmp_path / "ct")
    files[-1].write_bytes(content)
    with pytest.raises(ValueError, match=r"slice_0005.dcm.*; copy it again"):
        find_volumes(tmp_path)


def test_what_is_no_object(tmp_path):
    (tmp_path / "README").write_text("a note" * 100)
    (tmp_path / ".DS_Store").write_bytes(APPLE)
    (tmp_path / "empty").touch()
    assert not any(is_dicom(file) for file in tmp_path.iterdir())
    assert dicom_files(tmp_path.iterdir()) == ([], {})


def test_only_folders_with_ct_are_taken_from_monai(tmp_path):
    """A folder of another modality is read as MONAI reads it."""
    write_series(tmp_path / "ct")
    for file in write_series(tmp_path / "mr", lambda number, dataset: dataset.update({"Modality": "MR"})):
        shutil.copy(write_other(tmp_path / "one.dcm", "Positron Emission Tomography Image"), file)
    assert holds_ct(tmp_path / "ct")
    assert not holds_ct(tmp_path / "mr")
    (tmp_path / "mr" / "damaged.dcm").touch()
    assert not holds_ct(tmp_path / "mr")
