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

"""The CT volumes below a path, for inference."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import itk
import nibabel
from monai.config import PathLike
from nibabel.filebasedimages import ImageFileError

from monai_kd.data.folder_cases import SUFFIXES
from monai_kd.transforms.dicom_files import dicom_files, log_passed_over, passed_over_text
from monai_kd.transforms.dicom_series import DicomSeries
from monai_kd.transforms.dicom_series_reader import is_read_first


def find_volumes(path: PathLike, pattern: str = "*") -> list[dict[str, str]]:
    """
    Lists the CT volumes below a path, whatever lies there: volume files (NIfTI, NRRD, MetaImage) and folders of one
    DICOM series each, at any depth.

    A case is named after its path below the folder, with ``_`` between the parts and without suffix, so that KiTS19's
    ``case_00000/imaging.nii.gz`` and ``case_00001/imaging.nii.gz``, or two series whose slices have the same names,
    stay apart.

    The slices of each DICOM series are compared, so that what :py:class:`monai.transforms.LoadImage` reads later is the
    volume that the files describe (see :py:class:`monai_kd.transforms.DicomSeriesReader`). Objects of other kinds, such
    as structure sets, segmentations, reports and captures, are passed over; one line of the log counts them.

    Args:
        path: one volume file, the folder of one DICOM series, or a folder that holds any number of them. Hidden files
            and folders are passed over. Links are followed; a folder that is reached twice counts at its first path.
        pattern: what the name of a file, or of a folder of DICOM slices, must match, as in a shell: "volume-*" leaves
            out the segmentations of LiTS, "imaging*" those of KiTS19.

    Returns:
        [{"image", "case"}...] in the order of their paths.

    Raises:
        FileNotFoundError: when there is no such path, or no volume below it.
        ValueError: when the slices in a folder are not one whole volume of one series, a file cannot be read or has
            not three axes, two volumes would have one name, or ``MONAI_DICOM_READER`` asks for another reader.

    Example::

        >>> find_volumes("scans")  # doctest: +SKIP
        [{'image': 'scans/a.nii.gz', 'case': 'a'}, {'image': 'scans/b/series1', 'case': 'b_series1'}]
    """
    root = Path(path).expanduser()
    if not root.exists():
        raise FileNotFoundError(f"`path` must be a volume or a folder of volumes, but got {root}, which is not there.")
    items: dict[str, str] = {}
    passed_over: Counter[str] = Counter()
    for volume in [root] if _is_volume_file(root) else _below(root, pattern, passed_over):
        name = _name(volume, root)
        if name in items:
            raise ValueError(f"volumes must have different names, but got `{name}` for {items[name]} and {volume}.")
        if volume.is_file():
            _check_axes(volume)
        items[name] = str(volume)
    log_passed_over(passed_over, str(root))
    if not items:
        others = f", only {passed_over_text(passed_over)}" if passed_over else ""
        raise FileNotFoundError(
            f"`path` must hold volumes ({', '.join(SUFFIXES)}, or DICOM slices) that match {pattern!r}, "
            f"but got none in {root}{others}; of a DICOM series give the folder, not a slice."
        )
    return [{"image": image, "case": name} for name, image in items.items()]


def _is_volume_file(path: Path) -> bool:
    return path.is_file() and path.name.lower().endswith(SUFFIXES)


def _check_axes(path: Path) -> None:
    """From the header alone; a picture, or several volumes in a file, would fail in the middle of the others."""
    try:
        shape = _nifti_shape(path) if path.name.lower().endswith((".nii", ".nii.gz")) else _itk_shape(path)
    except (ImageFileError, OSError, RuntimeError) as error:
        raise ValueError(f"a volume must be readable, but got {path}: {error}") from error
    if len(shape) != 3:
        raise ValueError(f"a volume must have three axes, but got the shape {shape} in {path}.")


def _nifti_shape(path: Path) -> tuple[int, ...]:
    shape = nibabel.load(path).shape  # type: ignore[attr-defined]
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    return shape


def _itk_shape(path: Path) -> tuple[int, ...]:
    header = itk.ImageIOFactory.CreateImageIO(str(path), itk.CommonEnums.IOFileMode_ReadMode)
    if header is None:
        raise OSError("it is of none of the formats that its suffix stands for")
    header.SetFileName(str(path))
    header.ReadImageInformation()
    return tuple(header.GetDimensions(axis) for axis in range(header.GetNumberOfDimensions()))


def _below(root: Path, pattern: str, passed_over: Counter[str]) -> Iterator[Path]:
    seen: set[str] = set()  # links may lead in circles
    for folder, inner, names in os.walk(root, followlinks=True):
        if os.path.realpath(folder) in seen:
            inner[:] = []
            continue
        seen.add(os.path.realpath(folder))
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        paths = [Path(folder, name) for name in sorted(names)]
        files = [path for path in paths if path.is_file()]  # and no link to nowhere
        others = [file for file in files if not _is_volume_file(file)]
        if _matches(Path(folder), pattern) and _is_dicom_series(Path(folder), others, passed_over):
            yield Path(folder)
        for file in files:
            if _is_volume_file(file) and not file.name.startswith(".") and _matches(file, pattern):
                yield file


def _matches(path: Path, pattern: str) -> bool:
    return fnmatch(path.name, pattern)


def _is_dicom_series(folder: Path, files: list[Path], passed_over: Counter[str]) -> bool:
    slices, others = dicom_files(files)
    passed_over.update(others)
    if not slices:
        return False
    if not is_read_first():
        raise ValueError(
            f"a DICOM series must be read by the reader that compares its slices, but got "
            f"MONAI_DICOM_READER={os.environ.get('MONAI_DICOM_READER')} for {folder}; unset MONAI_DICOM_READER."
        )
    try:
        DicomSeries(slices)
    except ValueError as error:
        raise ValueError(f"{error} To leave the folder out, choose others by `pattern`.") from error
    return True


def _name(volume: Path, root: Path) -> str:
    parts = [*volume.relative_to(root).parts] or [root.resolve().name]
    if volume.is_file():
        parts[-1] = next(parts[-1][: -len(s)] for s in SUFFIXES if parts[-1].lower().endswith(s))
    return "_".join(parts)
