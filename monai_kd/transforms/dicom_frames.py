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

"""Where each frame of a DICOM object lies, and how its values are scaled."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from monai_kd.transforms.dicom_files import DicomSlice

GROUPS = {
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
    "SliceThickness": "PixelMeasuresSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
    "RescaleType": "PixelValueTransformationSequence",
}
UNITS = {  # of maps that scanners with two energies make, as CT images
    "OD": "optical density",
    "MGML": "mg/ml",
    "Z_EFF": "effective atomic numbers",
    "ED": "electron density",
    "EDW": "electron density",
    "PCT": "per cent",
}


class Frame(NamedTuple):
    """
    One image of a series.

    `position` and `orientation` are in DICOM's axes (LPS), `spacing` is between rows and between columns in mm.
    `rescale` is slope and intercept, or None where the file holds none.
    """

    file: Path
    number: int
    series: str
    frame_of_reference: str
    size: tuple[int, int]
    position: np.ndarray
    orientation: np.ndarray
    spacing: np.ndarray
    thickness: float | None
    rescale: tuple[float, float] | None


def frames_of(one: DicomSlice) -> Iterator[Frame]:
    """
    Lists the frames of a file: one for a CT slice, many for an enhanced CT, whose functional groups hold the
    attributes of each frame or those that all share.

    Args:
        one: file and header.

    Raises:
        ValueError: when an attribute is missing or holds something else.
    """
    number = count_frames(one)
    groups = _groups(one.header, "PerFrameFunctionalGroupsSequence")
    if groups and len(groups) != number:
        raise ValueError(
            f"an enhanced CT must describe each frame, but got {number} frames and {len(groups)} descriptions in "
            f"{one.file}; repair it or leave it out."
        )
    for index in range(number):
        yield _frame(one, index)


def count_frames(one: DicomSlice) -> int:
    """The number of frames that a file is to hold."""
    if "NumberOfFrames" not in one.header:
        return 1
    return _whole(one, "NumberOfFrames")


def _frame(one: DicomSlice, index: int) -> Frame:
    orientation = _numbers(one, index, "ImageOrientationPatient", 6)
    _check_axes(one, orientation)
    spacing = _numbers(one, index, "PixelSpacing", 2)
    if spacing.min() <= 0:
        raise ValueError(
            f"`PixelSpacing` must be above 0, but got {spacing.tolist()} in {one.file}; repair it or leave it out."
        )
    return Frame(
        file=one.file,
        number=index,
        series=str(one.header.get("SeriesInstanceUID", "")),
        frame_of_reference=str(one.header.get("FrameOfReferenceUID", "")),
        size=(_whole(one, "Rows"), _whole(one, "Columns")),
        position=_numbers(one, index, "ImagePositionPatient", 3),
        orientation=orientation,
        spacing=spacing,
        thickness=_thickness(one, index),
        rescale=_rescale(one, index),
    )


def _thickness(one: DicomSlice, index: int) -> float | None:
    """None where there is no number; a series of many slices needs none."""
    try:
        return float(_numbers(one, index, "SliceThickness", 1)[0])
    except ValueError:
        return None


def _rescale(one: DicomSlice, index: int) -> tuple[float, float] | None:
    if one.header.get("ModalityLUTSequence"):
        raise ValueError(
            f"a CT slice must be scaled by `RescaleSlope` and `RescaleIntercept`, but got a `ModalityLUTSequence` in "
            f"{one.file}; leave it out."
        )
    unit = _holder(one.header, index, "RescaleType").get("RescaleType") or "HU"
    if unit in UNITS:
        raise ValueError(
            f"a CT slice must be in Hounsfield units, but got `RescaleType` {unit}, {UNITS[unit]}, in {one.file}; "
            "leave the series out."
        )
    names = ("RescaleSlope", "RescaleIntercept")
    there = [name in _holder(one.header, index, name) for name in names]
    if not any(there):
        return None
    slope, intercept = (float(_numbers(one, index, name, 1)[0]) for name in names)
    if slope == 0:
        raise ValueError(f"`RescaleSlope` must not be 0, but got 0 in {one.file}; repair it or leave it out.")
    return slope, intercept


def _check_axes(one: DicomSlice, orientation: np.ndarray) -> None:
    row, column = orientation[:3], orientation[3:]
    lengths = np.linalg.norm([row, column], axis=1)
    if np.abs(lengths - 1).max() > 2e-3 or abs(row @ column) > 2e-3:
        raise ValueError(
            f"`ImageOrientationPatient` must hold two perpendicular unit vectors, but got {orientation.tolist()} in "
            f"{one.file}; repair it or leave it out."
        )


def _holder(header: Any, index: int, name: str) -> Any:
    """The data set that holds an attribute of a frame: its own group, the group of all, or the file's header."""
    own = _groups(header, "PerFrameFunctionalGroupsSequence")[index : index + 1]
    for group in (*own, *_groups(header, "SharedFunctionalGroupsSequence")[:1]):
        inner = group.get(GROUPS[name])
        if inner and name in inner[0]:
            return inner[0]
    return header


def _groups(header: Any, name: str) -> list[Any]:
    return list(header.get(name) or ())


def _numbers(one: DicomSlice, index: int, name: str, count: int) -> np.ndarray:
    found: Any = "none"
    try:
        found = _holder(one.header, index, name).get(name, "none")
        values = np.atleast_1d(np.asarray(found, dtype=float))
    except (TypeError, ValueError):
        values = np.zeros(0)
    if values.size != count or not np.isfinite(values).all():
        frame = f", frame {index + 1}" if index else ""
        raise ValueError(
            f"a CT slice must hold {count} number{'s' if count > 1 else ''} as `{name}`, but got {found or 'none'} in "
            f"{one.file}{frame}; repair it or leave it out."
        )
    return values


def _whole(one: DicomSlice, name: str) -> int:
    try:
        value = int(one.header.get(name) or 0)
    except (TypeError, ValueError):
        value = 0
    if value < 1:
        raise ValueError(
            f"a CT slice must hold a whole number above 0 as `{name}`, but got none in {one.file}; copy it again."
        )
    return value
