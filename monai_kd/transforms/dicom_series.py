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

"""The CT slices of a folder as one volume."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from monai.config import PathLike

from monai_kd.transforms.check_frames import check_alike, check_positions
from monai_kd.transforms.dicom_files import DicomSlice, dicom_files, errors_named, passed_over_text
from monai_kd.transforms.dicom_frames import Frame, frames_of
from monai_kd.transforms.dicom_pixels import check_pixels, hounsfield_frames
from monai_kd.transforms.lacking_slices import lacking_slices

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # DICOM's x and y point the other way than RAS


class DicomSeries:
    """
    A CT series whose files have been compared with each other: CT slices, or the frames of an enhanced CT.

    Frames are sorted by position, whatever the names, the instance numbers and the order of the files. The step from
    slice to slice is that of the positions, so that the volume of a tilted gantry has its sheared affine.

    Args:
        slices: the files of the series with their headers.
        passed_over: how many other objects lie beside them, by kind.

    Attributes:
        affine: 4 x 4, from index (column, row, slice) to RAS millimetres.
        shape: columns, rows, slices.
        passed_over: as given.
        lacking: what says that slices are missing at an end, where nothing else shows it; empty if nothing does.
        identity: the series, and a checksum of the places of its slices.

    Raises:
        ValueError: when the files are not one whole volume, or an attribute is missing.
    """

    def __init__(self, slices: Sequence[DicomSlice], passed_over: Counter[str] | None = None) -> None:
        self.passed_over = passed_over or Counter()
        self.lacking = lacking_slices([one.header for one in slices])
        frames: list[Frame] = []
        for one in slices:
            with errors_named(one.file):
                check_pixels(one)
                frames.extend(frames_of(one))
        check_alike(frames)
        self.frames = sorted(frames, key=_place)
        matrix = _matrix(self.frames)
        if len(frames) > 1:
            check_positions(self.frames, matrix)
        rows, columns = frames[0].size
        self.shape = (columns, rows, len(frames))
        lps = np.eye(4)
        lps[:3, :3] = matrix
        lps[:3, 3] = self.frames[0].position
        self.affine = LPS @ lps
        places = np.round(np.stack([frame.position for frame in self.frames]), 3) + 0.0
        extent = hashlib.sha256(places.tobytes()).hexdigest()[:16]
        self.identity = (frames[0].series, extent)

    @classmethod
    def of_files(cls, files: Iterable[Path]) -> DicomSeries:
        """
        The series among some files.

        Raises:
            ValueError: when there is no CT slice among them, or they are not one whole volume.
        """
        paths = list(files)
        slices, passed_over = dicom_files(paths)
        if not slices:
            folder = paths[0].parent if paths else "no files"
            there = passed_over_text(passed_over) or "none"
            raise ValueError(f"a DICOM series must hold CT slices, but got {there} in {folder}; give its folder.")
        return cls(slices, passed_over)

    @classmethod
    def of_path(cls, path: PathLike) -> DicomSeries:
        """
        The series in a folder, or in the one file of an enhanced CT.

        Raises:
            ValueError: as :py:meth:`of_files`, and for the file of one slice.
        """
        place = Path(path).expanduser()
        if place.is_file():
            series = cls.of_files([place])
            if len(series.frames) == 1:
                raise ValueError(
                    f"a DICOM series must be given as its folder, but got one slice, {place}; give {place.parent}."
                )
            return series
        return cls.of_files(file for file in place.iterdir() if file.is_file())

    def array(self) -> np.ndarray:
        """
        Reads the values.

        Returns:
            Hounsfield units (columns, rows, slices), integers where all are whole, else float32.

        Raises:
            ValueError: when a file cannot be decoded.
        """
        places: dict[Path, list[int]] = {}
        for place, frame in enumerate(self.frames):
            places.setdefault(frame.file, []).append(place)
        images: list[np.ndarray] = [np.zeros(0)] * len(self.frames)
        for file, own in places.items():
            own.sort(key=lambda place: self.frames[place].number)
            rescales = [self.frames[place].rescale for place in own]
            for place, image in zip(own, hounsfield_frames(file, self.frames[0].size, rescales)):
                images[place] = image
        volume = np.stack(images)
        volume = volume.astype(np.float32) if volume.dtype == np.float64 else volume
        return volume.T  # (slices, rows, columns) in memory


def split_series(identities: Mapping[str, tuple[str, str]]) -> dict[str, str]:
    """
    Names series whose slices lie in several folders, each of which looks like a whole volume. Copies of one series, and
    phases at the same places, are none.

    Args:
        identities: :py:attr:`DicomSeries.identity` by folder.

    Returns:
        what is wrong, by folder.

    Example::

        >>> sorted(split_series({"a": ("1.2", "x"), "b": ("1.2", "y"), "c": ("1.3", "z"), "d": ("1.2", "y")}))
        ['a', 'b', 'd']
    """
    folders: dict[str, list[str]] = {}
    for folder, (series, _) in identities.items():
        folders.setdefault(series, []).append(folder)
    problems: dict[str, str] = {}
    for series, own in folders.items():
        if series and len({identities[folder] for folder in own}) > 1:
            text = f"a DICOM series must lie in one folder, but got slices of {series} in {' and '.join(own)}; "
            problems |= dict.fromkeys(own, f"{text}put them into one folder, or leave the others out.")
    return problems


def _place(frame: Frame) -> float:
    normal = np.cross(frame.orientation[:3], frame.orientation[3:])
    return float(frame.position @ normal)


def _matrix(frames: Sequence[Frame]) -> np.ndarray:
    """The steps in mm along a row, along a column and from slice to slice, in LPS."""
    first, last = frames[0], frames[-1]
    row, column = (axis / np.linalg.norm(axis) for axis in (first.orientation[:3], first.orientation[3:]))
    if len(frames) > 1:
        step = (last.position - first.position) / (len(frames) - 1)
    else:
        step = np.cross(row, column) * _thickness(first)
    return np.stack([row * first.spacing[1], column * first.spacing[0], step], axis=1)


def _thickness(frame: Frame) -> float:
    if frame.thickness is None or not 0 < frame.thickness < np.inf:
        raise ValueError(
            f"a series of one slice must hold its `SliceThickness`, but got {frame.thickness} in {frame.file}; "
            "repair it or leave it out."
        )
    return frame.thickness
