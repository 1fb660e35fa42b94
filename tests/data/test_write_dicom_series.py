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

import numpy as np
import pytest
from monai.transforms import LoadImage

from monai_kd.data import write_dicom_series

pydicom = pytest.importorskip("pydicom")
pytest.importorskip("itk")


def volume(shape=(10, 8, 5)):
    return np.random.RandomState(0).randint(-1024, 3072, shape).astype(np.int16)


def affines():
    oblique = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1.0]])
    matrices = {
        "left_back": np.diag([-1.0, -1.0, 1.0]),
        "right_front": np.diag([1.0, 1.0, 1.0]),
        "head_first": np.diag([-1.0, -1.0, -1.0]),
        "oblique": oblique @ np.diag([-1.0, -1.0, 1.0]),
        "coronal": np.array([[-1.0, 0, 0], [0, 0, 1.0], [0, -1.0, 0]]),
    }
    for name, matrix in matrices.items():
        affine = np.eye(4)
        affine[:3, :3] = matrix @ np.diag([0.75, 0.5, 3.2])
        affine[:3, 3] = [-120.5, 80.25, -300.125]
        yield pytest.param(affine, id=name)


@pytest.mark.parametrize("affine", list(affines()))
@pytest.mark.parametrize("reader", ["ITKReader", "PydicomReader"])
def test_readers_give_back_voxels_where_they_are(tmp_path, affine, reader):
    """By position, whatever the order of axes and slices: the value at each voxel's place in mm."""
    image = volume()
    write_dicom_series(tmp_path, image, affine)
    check_places(image, affine, LoadImage(reader)(tmp_path))


def check_places(image, affine, found):
    places = np.array([*np.ndindex(*image.shape)])
    index = np.c_[places, np.ones(len(places))] @ (np.linalg.inv(found.affine.numpy()) @ affine).T
    np.testing.assert_allclose(index, np.rint(index), atol=1e-4)
    at = np.rint(index[:, :3]).astype(int)
    np.testing.assert_array_equal(found.numpy()[tuple(at.T)], image[tuple(places.T)])
    assert sorted(found.shape) == sorted(image.shape)


def test_values_are_stored_with_an_intercept(tmp_path):
    image = volume()
    files = write_dicom_series(tmp_path, image, np.diag([-1.0, -1.0, 2.0, 1.0]))
    assert [file.name for file in files] == [f"slice_{k:04d}.dcm" for k in range(5)]
    for k, file in enumerate(files):
        dataset = pydicom.dcmread(file)
        assert dataset.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
        assert (dataset.Rows, dataset.Columns) == (8, 10)
        assert dataset.pixel_array.min() >= 0
        hounsfield = dataset.pixel_array * float(dataset.RescaleSlope) + float(dataset.RescaleIntercept)
        np.testing.assert_array_equal(hounsfield, image[:, :, k].T)


def test_equal_input_gives_equal_files(tmp_path):
    one = write_dicom_series(tmp_path / "a", volume(), np.eye(4))
    other = write_dicom_series(tmp_path / "b", volume(), np.eye(4))
    assert [file.read_bytes() for file in one] == [file.read_bytes() for file in other]


def test_single_slice(tmp_path):
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    write_dicom_series(tmp_path, volume((6, 5, 1)), affine)
    check_places(volume((6, 5, 1)), affine, LoadImage("ITKReader")(tmp_path))


def test_guards(tmp_path):
    with pytest.raises(ValueError, match=r"`image` must be 3D with values in -1024 to .*, but got shape \(4, 4\)"):
        write_dicom_series(tmp_path, np.zeros((4, 4)), np.eye(4))
    with pytest.raises(ValueError, match="values from -3024 to 0"):
        write_dicom_series(tmp_path, np.array([[[-3024, 0]]]), np.eye(4))
    sheared = np.eye(4)
    sheared[0, 2] = 0.5
    with pytest.raises(ValueError, match="`affine` must have perpendicular axes"):
        write_dicom_series(tmp_path, volume(), sheared)
