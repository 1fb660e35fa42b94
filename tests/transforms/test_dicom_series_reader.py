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

"""MONAI's LoadImage takes our reader for CT series, whatever is made first."""

from __future__ import annotations

import io

import nibabel
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import LoadImage, LoadImaged, SaveImage

from monai_kd.transforms import DicomSeriesReader
from monai_kd.transforms.dicom_series_reader import is_read_first, register_dicom_series_reader
from tests.transforms.dicom import AFFINE, HU, write_series


def test_registered_once_and_last(monkeypatch):
    register_dicom_series_reader()
    assert is_read_first()
    kinds = [type(reader) for reader in LoadImage().readers]
    assert kinds[-1] is DicomSeriesReader
    assert kinds.count(DicomSeriesReader) == 1
    monkeypatch.setenv("MONAI_DICOM_READER", "pydicom")
    assert not is_read_first()


def test_meta_data(tmp_path):
    write_series(tmp_path / "ct")
    image = LoadImage(ensure_channel_first=True)(tmp_path / "ct")
    assert image.shape == (1, 10, 8, 6)
    assert image.dtype == torch.float32
    np.testing.assert_allclose(image.affine, AFFINE)
    np.testing.assert_allclose(image.meta["original_affine"], AFFINE)
    np.testing.assert_allclose(image.pixdim, [0.8, 0.7, 2.5])
    assert image.meta["filename_or_obj"] == str(tmp_path / "ct")
    assert list(image.meta["spatial_shape"]) == [10, 8, 6]
    assert LoadImaged("image")({"image": str(tmp_path / "ct")})["image"].shape == (10, 8, 6)


def test_named_reader_refuses_as_well(tmp_path):
    """MONAI tries other readers where reading fails; a refusal comes later, from get_data."""
    write_series(tmp_path / "ct")[2].unlink()
    with pytest.raises(ValueError, match="a slice is missing or doubled"):
        LoadImage("DicomSeriesReader")(tmp_path / "ct")


def test_several_folders_become_channels(tmp_path):
    write_series(tmp_path / "a")
    write_series(tmp_path / "b", array=HU + 1)
    image = LoadImage(ensure_channel_first=True)([tmp_path / "a", tmp_path / "b"])
    np.testing.assert_array_equal(image, np.stack([HU, HU + 1]))
    write_series(tmp_path / "short", array=HU[..., :5])
    with pytest.raises(ValueError, match="must be folders with CT slices in DICOM, but got .*; use another reader"):
        DicomSeriesReader().read(tmp_path)
    with pytest.raises(ValueError, match=r"one shape and affine, but got \(10, 8, 6\) and \(10, 8, 5\)"):
        LoadImage()([tmp_path / "a", tmp_path / "short"])


def test_everything_else_is_left_to_monai(tmp_path):
    reader = DicomSeriesReader()
    nibabel.save(nibabel.Nifti1Image(HU, AFFINE), tmp_path / "a.nii.gz")
    files = write_series(tmp_path / "ct")
    for other in (tmp_path / "a.nii.gz", tmp_path, [tmp_path / "ct", tmp_path], files[0], [], io.BytesIO()):
        assert not reader.verify_suffix(other)
    assert reader.verify_suffix((str(tmp_path / "ct"),))
    np.testing.assert_array_equal(LoadImage()(tmp_path / "a.nii.gz"), HU)
    assert LoadImage()(files[0]).shape[:2] == (10, 8)


def test_mask_of_a_tilted_series_lies_where_its_scan_lies(tmp_path):
    sheared = AFFINE.copy()
    sheared[:3, 1] = [0, -0.676, -0.18]
    save = SaveImage(tmp_path, "seg", separate_folder=False, print_log=False, output_dtype=np.uint8)
    save(MetaTensor(torch.ones(1, 10, 8, 6), affine=torch.tensor(sheared), meta={"filename_or_obj": "ct"}))
    np.testing.assert_allclose(nibabel.load(tmp_path / "ct_seg.nii.gz").affine, sheared, atol=1e-5)
