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

"""Refusing a DICOM folder that is not one whole volume."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from monai_kd.transforms.dicom_series import DicomSeries


def check_dicom_series(files: Sequence[Path]) -> None:
    """
    Refuses DICOM files that are not one volume with equal gaps. Readers take such files all the same and give a volume
    of wrong geometry: a slice that is missing or doubled changes the spacing of all others.

    Args:
        files: the files of a folder. Objects that are no CT slices are passed over.

    Raises:
        ValueError: when the files are of several series, differ in size, spacing or orientation, are cut off, do not
            lie at equal gaps on a straight line, or have no position.

    Example::

        >>> check_dicom_series([])
    """
    if files:
        DicomSeries.of_files(files)
