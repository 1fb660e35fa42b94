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

"""Refusing frames that are not one volume."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from monai_kd.transforms.dicom_frames import Frame

TOLERANCE = 0.1  # of a voxel
MOST = 0.3  # of a voxel, however coarsely positions are rounded; a missing slice is off by more
FIELDS = {
    "FrameOfReferenceUID": "frame_of_reference",
    "Rows` and `Columns": "size",
    "PixelSpacing": "spacing",
    "ImageOrientationPatient": "orientation",
}


def check_alike(frames: Sequence[Frame]) -> None:
    """
    Refuses frames that differ in what all frames of a volume share.

    Args:
        frames: of one folder.

    Raises:
        ValueError: when they differ.
    """
    folder = frames[0].file.parent
    series = {frame.series for frame in frames}
    if len(series) > 1:
        raise ValueError(
            f"a folder must hold the slices of one DICOM series, but got {len(series)} in {folder}; "
            "move each to a folder of its own."
        )
    first = frames[0]
    for frame in frames[1:]:
        _check_same("FrameOfReferenceUID", first, frame, first.frame_of_reference == frame.frame_of_reference)
        _check_same("Rows` and `Columns", first, frame, first.size == frame.size)
        _check_same("PixelSpacing", first, frame, np.allclose(first.spacing, frame.spacing, rtol=1e-4, atol=0))
        close = np.allclose(first.orientation, frame.orientation, rtol=0, atol=1e-4)
        _check_same("ImageOrientationPatient", first, frame, close)
        if (first.rescale is None) != (frame.rescale is None):
            raise ValueError(
                f"all slices of a DICOM series must hold a `RescaleSlope` or none, but got {_text(first.rescale)} in "
                f"{first.file} and {_text(frame.rescale)} in {frame.file}; repair them or leave the series out."
            )


def _check_same(name: str, first: Frame, frame: Frame, same: bool) -> None:
    if same:
        return
    one, other = (_text(getattr(each, FIELDS[name])) for each in (first, frame))
    raise ValueError(
        f"the slices of a DICOM series must have the same `{name}`, but got {one} in {first.file} and {other} in "
        f"{frame.file}; move each kind to a folder of its own."
    )


def _text(value: Any) -> str:
    if value is None:
        return "none"
    return str(value.tolist() if isinstance(value, np.ndarray) else value)


def check_positions(frames: Sequence[Frame], matrix: np.ndarray) -> None:
    """
    Refuses frames that do not lie at equal steps on a straight line, to a tenth of a voxel or what the positions are
    rounded to.

    Args:
        frames: in the order of their places.
        matrix: 3 x 3, the steps in mm from voxel to voxel: along a row, along a column, from frame to frame.

    Raises:
        ValueError: when a frame is missing, doubled, or lies elsewhere.
    """
    folder = frames[0].file.parent
    positions = np.stack([frame.position for frame in frames])
    normal = np.cross(matrix[:, 0], matrix[:, 1])
    gaps = np.diff(positions @ (normal / np.linalg.norm(normal)))
    number = np.arange(len(frames))
    if gaps.min() < 1e-3:
        _refuse_gaps(gaps, folder)
    allowed = _allowed(positions, matrix)
    if (np.abs(gaps / gaps.mean() - 1) > allowed[2]).any():
        _refuse_gaps(gaps, folder)
    beside = np.linalg.solve(matrix, (positions - positions[0]).T).T
    beside[:, 2] -= number
    worst = int(np.argmax((np.abs(beside) / allowed).max(axis=1)))
    if (np.abs(beside[worst]) > allowed).any():
        distance = np.linalg.norm(matrix @ beside[worst])
        raise ValueError(
            f"the slices of a DICOM series must lie on a straight line at equal steps, but got {distance:.3g} mm "
            f"between {frames[worst].file} and its place; repair its `ImagePositionPatient` or leave the series out."
        )


def _refuse_gaps(gaps: np.ndarray, folder: Path) -> None:
    raise ValueError(
        f"the slices of a DICOM series must lie at equal gaps, but got {gaps.min():.3g} to {gaps.max():.3g} mm "
        f"(usually {float(np.median(gaps)):.3g}) in {folder}; a slice is missing or doubled."
    )


def _allowed(positions: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """How far off a position may lie along each axis, in voxels."""
    rounding = np.array([_rounded_to(positions[:, axis]) for axis in range(3)])
    voxels = np.abs(np.linalg.inv(matrix)) @ rounding
    return np.clip(voxels + 1e-6, TOLERANCE, MOST)


def _rounded_to(coordinates: np.ndarray) -> float:
    """1, 0.1, 0.01 ... for coordinates with as many decimals; 0 where all are equal."""
    if np.ptp(coordinates) == 0:
        return 0.0
    for decimals in range(6):
        scaled = coordinates * 10**decimals
        if np.allclose(scaled, np.rint(scaled), rtol=0, atol=1e-6 * 10**decimals):
            return float(10**-decimals)
    return 0.0
