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

import logging

import pydicom
import pytest

from monai_kd.data import find_volumes, folder_cases, scan_cases
from monai_kd.transforms.lacking_slices import lacking_slices
from tests.transforms.dicom import HU, write_series


def numbered(number, dataset):
    dataset.InstanceNumber = number + 3


def counted(number, dataset):
    dataset.ImagesInAcquisition = 7


def related(number, dataset):
    dataset.NumberOfSeriesRelatedInstances = 8


def as_many(number, dataset):
    dataset.ImagesInAcquisition = 6


def from_zero(number, dataset):
    dataset.InstanceNumber = number


def with_gaps(number, dataset):
    dataset.InstanceNumber = 3 * number + 2


def without(number, dataset):
    del dataset.InstanceNumber


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (None, ""),
        (as_many, ""),
        (from_zero, ""),
        (with_gaps, ""),
        (without, ""),
        (numbered, "instance numbers start at 3"),
        (counted, "`ImagesInAcquisition` is 7"),
        (related, "`NumberOfSeriesRelatedInstances` is 8"),
    ],
)
def test_headers_say_that_slices_lack(tmp_path, edit, reason):
    assert lacking_slices([pydicom.dcmread(file) for file in write_series(tmp_path, edit)]) == reason


@pytest.mark.parametrize("end", [0, -1])
def test_slice_that_lacks_at_an_end_is_warned_of_in_one_line(tmp_path, caplog, end):
    folder = tmp_path / "images" / "a"
    write_series(folder, as_many)[end].unlink()
    write_series(tmp_path / "images" / "b", as_many, HU[..., ::-1])
    with caplog.at_level(logging.WARNING):
        found = find_volumes(tmp_path, pattern="a", check=False)
        scan_cases(folder_cases(tmp_path, with_labels=False)[:1], progress=False)
    assert len(found) == 1
    lines = [record.message for record in caplog.records if "slices may be missing" in record.message]
    start = "slices may be missing at an end of 1 DICOM series: "
    assert lines == [
        f"{start}{folder} (`ImagesInAcquisition` is 6); compare them with the archive",
        f"{start}a (`ImagesInAcquisition` is 6); compare them with the archive",
    ]
