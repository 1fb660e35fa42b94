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

"""Which volumes lie below a path."""

from __future__ import annotations

import shutil
import unicodedata
from pathlib import Path

import itk
import nibabel
import numpy as np
import pytest
from monai.transforms import LoadImage

from monai_kd.data import find_volumes, write_dicom_series
from monai_kd.transforms import LoadVolume

VOLUME = np.zeros((4, 4, 3), dtype=np.int16)


def series(folder: Path, name: str = "one") -> Path:
    write_dicom_series(folder, VOLUME, np.diag([-1.0, -1.0, 2.0, 1.0]), name=name)
    return folder


def touch(*paths: Path, shape: tuple[int, ...] = VOLUME.shape) -> None:
    """A file each: a volume, or of another suffix an empty one."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.name.lower().endswith((".nii", ".nii.gz")):
            nibabel.save(nibabel.Nifti1Image(np.zeros(shape, np.int16), np.eye(4)), path)
        elif path.suffix in (".nrrd", ".mha"):
            itk.imwrite(itk.image_from_array(np.zeros(shape, np.int16)), str(path))
        else:
            path.write_bytes(b"")


def cases(path: Path, pattern: str = "*") -> dict[str, str]:
    return {item["case"]: item["image"] for item in find_volumes(path, pattern)}


def test_files_and_series_at_any_depth(tmp_path):
    touch(tmp_path / "a.nii.gz", tmp_path / "b.NII", tmp_path / "deep" / "er" / "c.nrrd", tmp_path / "m.mha")
    touch(tmp_path / "notes.txt", tmp_path / ".hidden.nii", tmp_path / ".cache" / "d.nii.gz", tmp_path / "empty")
    series(tmp_path / "patient" / "ct")
    assert cases(tmp_path) == {
        "a": f"{tmp_path}/a.nii.gz",
        "b": f"{tmp_path}/b.NII",
        "m": f"{tmp_path}/m.mha",
        "deep_er_c": f"{tmp_path}/deep/er/c.nrrd",
        "patient_ct": f"{tmp_path}/patient/ct",
    }


def test_one_file_and_one_series(tmp_path):
    touch(tmp_path / "a.b.nii.gz")
    assert cases(tmp_path / "a.b.nii.gz") == {"a.b": f"{tmp_path}/a.b.nii.gz"}
    assert cases(series(tmp_path / "1.2.3")) == {"1.2.3": f"{tmp_path}/1.2.3"}


def test_series_of_files_without_suffix(tmp_path):
    for number, path in enumerate(sorted(series(tmp_path / "ct").iterdir())):
        path.rename(path.with_name(f"image_{number}"))
    (path,) = cases(tmp_path).values()
    assert LoadImage(image_only=True)(path).shape == VOLUME.shape


def test_cases_of_one_file_name_stay_apart(tmp_path):
    """KiTS19 calls every volume imaging.nii.gz, and every series has a slice_0000.dcm."""
    touch(*(tmp_path / f"case_0000{number}" / "imaging.nii.gz" for number in range(3)))
    touch(*(tmp_path / f"case_0000{number}" / "segmentation.nii.gz" for number in range(3)))
    series(tmp_path / "x"), series(tmp_path / "y")
    assert set(cases(tmp_path, "imaging*")) == {f"case_0000{number}_imaging" for number in range(3)}
    assert set(cases(tmp_path, "[xy]")) == {"x", "y"}
    assert len(cases(tmp_path)) == 5  # without the masks
    assert len(cases(tmp_path, "seg*")) == 3  # unless they are asked for


def test_order_is_that_of_the_paths(tmp_path):
    touch(*(tmp_path / name for name in ("c.nii", "a.nii", "b.nii")))
    assert list(cases(tmp_path)) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("name", "shape"), [("a.nii.gz", (8, 8)), ("a.nii", (8, 8, 4, 3)), ("a.nrrd", (8, 8)), ("a.mha", (8, 8))]
)
def test_other_than_three_axes_are_refused(tmp_path, name, shape):
    """A picture or a series in time, which a network of slices would meet in the middle of a run."""
    touch(tmp_path / "fine.nii.gz")
    touch(tmp_path / "deep" / name, shape=shape)
    message = rf".*/deep/{name}: it must have three axes, but got the shape \({', '.join(map(str, shape))}\)"
    with pytest.raises(ValueError, match=message):
        find_volumes(tmp_path)
    assert set(cases(tmp_path, "fine*")) == {"fine"}


@pytest.mark.parametrize("shape", [(8, 8, 1), (8, 8, 4, 1)])
def test_axes_of_length_one_are_no_series(tmp_path, shape):
    touch(tmp_path / "a.nii.gz", shape=shape)
    assert set(cases(tmp_path)) == {"a"}


def test_axes_that_monai_keeps_are_refused_unless_our_reader_drops_them(tmp_path):
    touch(tmp_path / "a.nii.gz", shape=(8, 8, 4, 1, 1))
    with pytest.raises(ValueError, match=r"a.nii.gz: it must have three axes, but got the shape \(8, 8, 4, 1, 1\), of"):
        find_volumes(tmp_path)
    (item,) = find_volumes(tmp_path, check=False)
    assert LoadVolume()(item["image"]).shape == (1, 8, 8, 4)


@pytest.mark.parametrize("name", ["a.nii.gz", "a.nii", "a.nrrd", "a.mha"])
def test_damaged_file_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"no volume")
    with pytest.raises(ValueError, match=f"a volume must be readable, but got .*/{name}: "):
        find_volumes(tmp_path)


def test_links_are_followed(tmp_path):
    """To a file, to a folder of files and to a series elsewhere; the folder that is given may be a link itself."""
    touch(tmp_path / "archive" / "a.nii.gz", tmp_path / "archive" / "patient" / "b.nii.gz")
    series(tmp_path / "archive" / "ct")
    (tmp_path / "scans").mkdir()
    for name in ("a.nii.gz", "patient", "ct"):
        (tmp_path / "scans" / name).symlink_to(tmp_path / "archive" / name)
    (tmp_path / "given").symlink_to(tmp_path / "scans")
    assert set(cases(tmp_path / "scans")) == set(cases(tmp_path / "given")) == {"a", "patient_b", "ct"}


def test_links_in_a_circle_end(tmp_path):
    touch(tmp_path / "a" / "x.nii", tmp_path / "b" / "y.nii")
    (tmp_path / "a" / "self").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "to_b").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "to_a").symlink_to(tmp_path / "a")
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    assert set(cases(tmp_path)) == {"a_x", "a_to_b_y"}  # each folder once


def test_nothing_is_said(tmp_path):
    touch(tmp_path / "a.png")
    with pytest.raises(
        FileNotFoundError, match=r"`path` must be a volume or a folder .* but got .*nowhere, which is not"
    ):
        find_volumes(tmp_path / "nowhere")
    with pytest.raises(
        FileNotFoundError, match=r"must hold volumes .* that match 'ct\*', but got none in .*give the folder"
    ):
        find_volumes(tmp_path, "ct*")
    one_slice = next(series(tmp_path / "ct").iterdir())
    with pytest.raises(FileNotFoundError, match="of a DICOM series give the folder, not a slice"):
        find_volumes(one_slice)


def test_mixed_series_are_refused(tmp_path):
    """A reader would take the first and say nothing."""
    for path in series(tmp_path / "other", "two").iterdir():
        shutil.copy(path, series(tmp_path / "ct") / f"two_{path.name}")
    with pytest.raises(ValueError, match=r"must hold the slices of one DICOM series, but got 2 in .*ct; move each"):
        find_volumes(tmp_path)


def test_equal_names_are_refused(tmp_path):
    touch(tmp_path / "a" / "b.nii", tmp_path / "a_b.nii.gz")
    with pytest.raises(ValueError, match=r"must have different names, but got `a_b` for .*a_b.nii.gz and .*a/b.nii"):
        find_volumes(tmp_path)


def test_masks_are_no_scans(tmp_path, caplog):
    """What an inference wrote, labels beside images, segmentations of KiTS and LiTS."""
    touch(tmp_path / "images" / "a.nii.gz", tmp_path / "labels" / "a.nii.gz", tmp_path / "volume-0.nii")
    touch(tmp_path / "segmentation-0.nii", tmp_path / "eval" / "a_seg.nii.gz", tmp_path / "case_1" / "imaging.nii.gz")
    touch(tmp_path / "case_1" / "aggregated_MAJ_seg.nii.gz", tmp_path / "case_1" / "segmentation.nii.gz")
    touch(tmp_path / "segments.nii.gz")  # no mask by its name
    assert set(cases(tmp_path)) == {"images_a", "volume-0", "case_1_imaging", "segments"}
    assert "mask (5)" in caplog.text
    assert set(cases(tmp_path / "labels")) == {"a"}  # when asked for
    assert set(cases(tmp_path, "*_seg.nii.gz")) == {"eval_a_seg", "case_1_aggregated_MAJ_seg"}


def test_folder_of_results_is_passed_over(tmp_path):
    touch(tmp_path / "a.nii", tmp_path / "eval" / "x.nii.gz")
    items = find_volumes(tmp_path, exclude=tmp_path / "eval")
    assert [item["case"] for item in items] == ["a"]
    assert len(find_volumes(tmp_path, exclude=tmp_path)) == 2  # written among them: told by their names
    assert len(find_volumes(tmp_path, exclude=tmp_path / "none")) == 2


def test_all_unreadable_volumes_in_one_error(tmp_path):
    touch(tmp_path / "a.nii.gz", tmp_path / "b.nii.gz", tmp_path / "c.nii")
    (tmp_path / "b.nii.gz").write_bytes((tmp_path / "a.nii.gz").read_bytes()[:-9])
    (tmp_path / "c.nii").write_bytes((tmp_path / "c.nii").read_bytes()[:-9])
    with pytest.raises(ValueError, match="2 of 3 volumes cannot be used") as caught:
        find_volumes(tmp_path)
    assert all(name in str(caught.value) for name in ("b.nii.gz", "c.nii"))
    assert len(find_volumes(tmp_path, check=False)) == 3


def test_affine_that_monai_takes_for_another_is_refused(tmp_path):
    image = nibabel.Nifti1Image(VOLUME, None)
    image.set_sform(np.diag([-0.8, -0.8, 2.5, 1]), 1)
    nibabel.save(image, tmp_path / "ct.nii.gz")
    with pytest.raises(ValueError, match=r"ct.nii.gz: its sform and `pixdim` must agree, .*\[0.8, 0.8, 2.5\] and \[1"):
        find_volumes(tmp_path)


def test_damaged_series_among_others_is_listed_where_asked(tmp_path):
    touch(tmp_path / "a.nii")
    for path in series(tmp_path / "other", "two").iterdir():
        shutil.copy(path, series(tmp_path / "ct") / f"two_{path.name}")
    assert {item["case"] for item in find_volumes(tmp_path, check=False)} == {"a", "ct", "other"}


def test_names_of_macos_match(tmp_path):
    touch(tmp_path / unicodedata.normalize("NFD", "Müller.nii"))
    pattern = unicodedata.normalize("NFC", "Mü*")
    assert list(cases(tmp_path, pattern)) == [unicodedata.normalize("NFC", "Müller")]
