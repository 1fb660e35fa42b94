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

import nibabel
import numpy as np
import pytest
import torch
from monai.transforms import LoadImage

from monai_kd.data import ct_phantom, write_dicom_series
from monai_kd.transforms import LoadSlice, LoadVolume, LoadVolumed

AFFINE = np.array([[-0.8, 0, 0, 25], [0, -0.8, 0, 30], [0, 0, 2.5, -100], [0, 0, 0, 1.0]])
VALUES = np.random.default_rng(0).integers(-1000, 1000, (6, 5, 4)).astype(np.int16)


def save(path, affine=AFFINE, values=VALUES):
    nibabel.save(nibabel.Nifti1Image(values, affine), path)
    return path


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.NII.GZ"])
def test_it_is_what_monai_loads(tmp_path, name):
    path = save(tmp_path / name)
    image, expected = LoadVolume()(path), LoadImage(ensure_channel_first=True)(path)
    assert torch.equal(image, expected)
    assert torch.equal(image.affine, expected.affine)
    assert image.meta.keys() == expected.meta.keys()
    assert image.meta["filename_or_obj"] == str(path)
    assert image.dtype == torch.float32


def test_series_is_loaded_too(tmp_path):
    phantom = ct_phantom(seed=3, size=32, num_slices=6)
    write_dicom_series(tmp_path, phantom.image, phantom.affine)
    image = LoadVolume()(tmp_path)
    assert image.shape == (1, *phantom.image.shape)
    assert image.meta["filename_or_obj"] == str(tmp_path)


def mismatched(path, sform=AFFINE, qform_code=0):
    """An sform of code 1 beside a voxel size of 1 and the qform that goes with it, as some converters leave it."""
    image = nibabel.Nifti1Image(VALUES, None)
    image.set_qform(np.eye(4), qform_code)
    image.set_sform(sform, 1)
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("qform_code", [0, 1])
@pytest.mark.parametrize("shear", [0.0, 0.7])
def test_sform_is_taken_whatever_the_voxel_size_says(tmp_path, name, qform_code, shear):
    sform = AFFINE.copy()
    sform[1, 2] = shear
    path = mismatched(tmp_path / name, sform, qform_code)
    assert not np.allclose(LoadImage()(path).affine, sform)
    np.testing.assert_allclose(LoadVolume()(path).affine, sform, atol=1e-5)
    np.testing.assert_allclose(LoadSlice().volume(path).affine, sform, atol=1e-5)


def test_mask_of_another_place_is_refused_by_name(tmp_path):
    image, label = mismatched(tmp_path / "ct.nii.gz"), save(tmp_path / "label.nii.gz", np.eye(4), VALUES % 3)
    load = LoadVolumed(["image", "label"], dtype=["float32", "uint8"])
    with pytest.raises(ValueError, match=r"the image's affine, but got .* \(.*ct.nii.gz, .*label.nii.gz\)"):
        load({"image": image, "label": label})
    save(label, AFFINE, np.swapaxes(VALUES % 3, 0, 1))
    with pytest.raises(ValueError, match=r"the image's shape, but got \(5, 6, 4\) and \(6, 5, 4\) \(.*ct.*, .*label"):
        load({"image": image, "label": label})
    save(label, AFFINE, VALUES % 3)
    item = load({"image": image, "label": label})
    assert (item["image"].dtype, item["label"].dtype) == (torch.float32, torch.uint8)


def test_geometry_of_the_image_holds_where_asked(tmp_path):
    image, label = save(tmp_path / "ct.nii"), save(tmp_path / "label.nii", np.eye(4))
    item = LoadVolumed(["image", "label"], geometry_key="image")({"image": image, "label": label})
    np.testing.assert_allclose(item["label"].affine, AFFINE)
    with pytest.raises(ValueError, match="`geometry_key` must be one of .*image.*, but got 'ct'"):
        LoadVolumed("image", geometry_key="ct")


def test_axes_of_length_one_are_dropped(tmp_path):
    path = save(tmp_path / "a.nii.gz", values=VALUES[..., None, None])
    assert LoadVolume()(path).shape == (1, *VALUES.shape)
    assert LoadSlice()(path, 0).shape == (1, *VALUES.shape[:2])


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ([(c, "u1") for c in "RGB"], "one real number a voxel, but got colours"),
        (np.complex64, "one real number a voxel, but got complex64"),
    ],
)
def test_each_error_names_the_file(tmp_path, kind, message):
    path = save(tmp_path / "odd.nii.gz", values=np.zeros(VALUES.shape, kind))
    with pytest.raises(RuntimeError, match=f"odd.nii.gz cannot be read, ValueError: it must hold {message}"):
        LoadVolume()(path)


def test_unknown_type_and_cut_files_are_named(tmp_path):
    whole = save(tmp_path / "a.nii").read_bytes()
    (tmp_path / "type.nii").write_bytes(whole[:70] + b"\x0f\x27" + whole[72:])
    (tmp_path / "head.nii").write_bytes(whole[:100])
    (tmp_path / "empty.nii.gz").touch()
    for name in ("type.nii", "head.nii", "empty.nii.gz"):
        for load in (LoadVolume(), LoadSlice().volume):
            with pytest.raises(RuntimeError, match=f"{name} cannot be read, "):
                load(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="but got .*none.nii, which is not there"):
        LoadVolume()(tmp_path / "none.nii")


def test_values_that_the_type_cannot_hold_are_refused(tmp_path):
    path = save(tmp_path / "label.nii", values=np.full(VALUES.shape, 300, np.int16))
    with pytest.raises(RuntimeError, match="label.nii cannot be read, .* from 0 to 255, as uint8 holds, but got 300; "):
        LoadVolume(dtype="uint8")(path)
    assert LoadVolume(dtype="int16")(path).max() == 300
