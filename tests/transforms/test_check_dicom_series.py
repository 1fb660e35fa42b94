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

import numpy as np
import pytest

from monai_kd.data import find_volumes, write_dicom_series
from monai_kd.transforms import LoadSlice
from monai_kd.transforms.check_dicom_series import check_dicom_series


@pytest.fixture
def series(tmp_path):
    affine = np.diag([-1.0, -1.0, 2.5, 1.0])
    return write_dicom_series(tmp_path / "series", np.full((16, 16, 6), -1000), affine)


def test_whole_series_passes_in_any_order(series):
    check_dicom_series(series)
    check_dicom_series(series[::-1])


def test_missing_slice(series):
    with pytest.raises(ValueError, match=r"must lie at equal gaps, but got 2\.5 to 5 mm \(usually 2\.5\) in .*series"):
        check_dicom_series(series[:2] + series[3:])


def test_doubled_slice_is_refused_wherever_a_folder_is_read(series):
    shutil.copy(series[3], series[3].with_name("copy of 3.dcm"))
    folder = series[0].parent
    with pytest.raises(ValueError, match="but got 0 to 2.5 mm.*missing or doubled"):
        find_volumes(folder)
    with pytest.raises(RuntimeError, match="missing or doubled"):
        LoadSlice()(folder, 0)


def test_slices_of_two_series(series, tmp_path):
    other = write_dicom_series(tmp_path / "other", np.full((16, 16, 6), -900), np.diag([-1.0, -1.0, 3.0, 1.0]), "other")
    with pytest.raises(ValueError, match="one DICOM series, but got 2"):
        check_dicom_series([*series, *other])


def test_other_files_beside_the_slices_are_no_series(series):
    (series[0].parent / "README.txt").write_text("a note")
    assert LoadSlice()(series[0].parent, 2).shape == (1, 16, 16)
