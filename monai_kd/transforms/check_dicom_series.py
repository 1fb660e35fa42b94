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

import numpy as np
from monai.utils import optional_import

pydicom, has_pydicom = optional_import("pydicom")
TAGS = ["SeriesInstanceUID", "ImagePositionPatient", "ImageOrientationPatient"]


def is_dicom(file: Path) -> bool:
    """Whether a file is a DICOM slice, by its suffix or its preamble."""
    if file.name.upper() == "DICOMDIR":
        return False
    if file.suffix.lower() == ".dcm":
        return True
    with file.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def check_dicom_series(files: Sequence[Path]) -> None:
    """
    Refuse slices that are not one volume with equal gaps. ITK and pydicom read such a folder all the same, and give a
    volume of wrong geometry: a slice that is missing or doubled changes the spacing of all others.

    Args:
        files: the DICOM files of a folder; without pydicom nothing is checked.

    Raises:
        ValueError: when the files are of several series, or a slice is missing or doubled.

    Example::

        >>> check_dicom_series([])
    """
    if not has_pydicom or len(files) < 2:
        return
    headers = [pydicom.dcmread(file, stop_before_pixels=True, specific_tags=TAGS, force=True) for file in files]
    folder = Path(files[0]).parent
    series = {str(header.get("SeriesInstanceUID", "")) for header in headers}
    if len(series) > 1:
        raise ValueError(
            f"a folder must hold the slices of one DICOM series, but got {len(series)} in {folder}; "
            "move each to a folder of its own."
        )
    if not all("ImagePositionPatient" in header and "ImageOrientationPatient" in header for header in headers):
        return
    along = np.asarray(headers[0].ImageOrientationPatient, dtype=float)
    normal = np.cross(along[:3], along[3:])
    gaps = np.diff(np.sort([np.asarray(header.ImagePositionPatient, dtype=float) @ normal for header in headers]))
    usual = float(np.median(gaps))
    if gaps.min() < 1e-3 or gaps.max() - gaps.min() > 0.1 * usual:
        raise ValueError(
            f"the slices of a DICOM series must lie at equal gaps, but got {gaps.min():.3g} to {gaps.max():.3g} mm "
            f"(usually {usual:.3g}) in {folder}; a slice is missing or doubled."
        )
