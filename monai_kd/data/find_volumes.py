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
import re
from collections import Counter
from collections.abc import Iterator
from fnmatch import fnmatch
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from monai.config import PathLike
from monai.data.image_reader import NibabelReader

from monai_kd.data.folder_cases import SUFFIXES
from monai_kd.data.problem_lines import problem_lines
from monai_kd.data.same_name import same_name
from monai_kd.transforms.check_nifti import NIFTI
from monai_kd.transforms.check_volume import check_volume
from monai_kd.transforms.dicom_files import dicom_files, log_passed_over, passed_over_text
from monai_kd.transforms.dicom_series import DicomSeries, split_series
from monai_kd.transforms.dicom_series_reader import is_read_first
from monai_kd.transforms.lacking_slices import log_lacking
from monai_kd.transforms.volume_rules import reason_of

# names of masks: our own X_seg, those of KiTS and LiTS, and folders of labels
MASK = re.compile(r"(.*[_-])?(seg|segmentation|mask|label)s?([_-]?\d+)?", re.IGNORECASE)
MASK_FOLDER = re.compile(r"(labels?|masks?|segmentations?)(Tr|Ts)?", re.IGNORECASE)


def find_volumes(
    path: PathLike, pattern: str = "*", exclude: PathLike | None = None, check: bool = True
) -> list[dict[str, str]]:
    """
    Lists the CT volumes below a path, whatever lies there: volume files (NIfTI, NRRD, MetaImage) and folders of one
    DICOM series each, at any depth.

    A case is named after its path below the folder, with ``_`` between the parts and without suffix, so that KiTS19's
    ``case_00000/imaging.nii.gz`` and ``case_00001/imaging.nii.gz``, or two series whose slices have the same names,
    stay apart.

    The slices of each DICOM series are compared, so that what :py:class:`monai.transforms.LoadImage` reads later is the
    volume that the files describe (see :py:class:`monai_kd.transforms.DicomSeriesReader`). Objects of other kinds, such
    as structure sets, segmentations, reports and captures, are passed over; one line of the log counts them. So are
    masks among the volumes, told by their names (``X_seg``, ``segmentation-0``, a folder ``labels``), unless `pattern`
    is given.

    Args:
        path: one volume file, the folder of one DICOM series, or a folder that holds any number of them. Hidden files
            and folders are passed over. Links are followed; a folder that is reached twice counts at its first path.
        pattern: what the name of a file, or of a folder of DICOM slices, must match, as in a shell: "volume-*" leaves
            out the segmentations of LiTS, "imaging*" those of KiTS19.
        exclude: a folder below `path` that is passed over, as that of earlier results; it need not be there.
        check: whether to read each volume's header and compressed data to the checksum, so that plain MONAI reads right
            what is listed. Without, :py:class:`monai_kd.transforms.LoadVolumed` checks each as it loads it.

    Returns:
        [{"image", "case"}...] in the order of their paths.

    Raises:
        FileNotFoundError: when there is no such path, or no volume below it.
        ValueError: when two volumes would have one name, or the slices of one DICOM series lie in two folders; with
            `check`, all volumes that cannot be used: the slices in a folder are not one whole volume of one series, a
            file is damaged, has not three axes or one real number a voxel, MONAI takes another affine than its sform,
            or ``MONAI_DICOM_READER`` asks for another reader.

    Example::

        >>> find_volumes("scans")  # doctest: +SKIP
        [{'image': 'scans/a.nii.gz', 'case': 'a'}, {'image': 'scans/b/series1', 'case': 'b_series1'}]
    """
    root = Path(path).expanduser()
    if not root.exists():
        raise FileNotFoundError(f"`path` must be a volume or a folder of volumes, but got {root}, which is not there.")
    search = _Search(root, pattern, exclude)
    items: dict[str, Path] = {}
    for volume in [root] if _is_volume_file(root) else search.below():
        name = same_name(_name(volume, root))
        if name in items:
            raise ValueError(
                f"volumes must have different names, but got `{name}` for {items[name]} and {volume}; rename one."
            )
        items[name] = volume
    log_passed_over(search.passed_over, str(root))
    log_lacking(search.lacking)
    split = split_series(search.identities)
    if split:
        raise ValueError("; ".join(sorted(set(split.values()))))
    if not items:
        others = f", only {passed_over_text(search.passed_over)}" if search.passed_over else ""
        raise FileNotFoundError(
            f"`path` must hold volumes ({', '.join(SUFFIXES)}, or DICOM slices) that match {pattern!r}, "
            f"but got none in {root}{others}; of a DICOM series give the folder, not a slice."
        )
    if check:
        _refuse_unreadable(list(items.values()), search.problems)
    return [{"image": str(image), "case": name} for name, image in items.items()]


def _is_volume_file(path: Path) -> bool:
    return path.is_file() and path.name.lower().endswith(SUFFIXES)


def _refuse_unreadable(volumes: list[Path], known: dict[Path, str]) -> None:
    with ThreadPool(4) as pool:
        found = pool.map(lambda volume: known.get(volume) or _problem(volume), volumes)
    problems = {str(volume): problem for volume, problem in zip(volumes, found) if problem}
    if len(problems) == 1:
        raise ValueError(*problems.values())
    if problems:
        count = f"{len(problems)} of {len(volumes)}"
        raise ValueError(f"{count} volumes cannot be used; repair or move them:{problem_lines(problems)}")


def _problem(path: Path) -> str | None:
    """Why a volume cannot be used, by its header and checksum."""
    if path.is_dir():
        return None
    try:
        check_volume(path)
        if path.name.lower().endswith(NIFTI):
            _check_reading_of_monai(path)
    except Exception as error:  # whatever is wrong with it, it belongs on the list
        return f"a volume must be readable, but got {path}: {reason_of(error)}"
    return None


def _check_reading_of_monai(path: Path) -> None:
    image: Any = nibabel.load(path)
    if len(image.shape) > 4:  # of four the last becomes the channel
        raise ValueError(
            f"it must have three axes, but got the shape {image.shape}, of which MONAI keeps the axes of length one; "
            "write it with three, or load it by `monai_kd.transforms.LoadVolumed` with `check=False` here."
        )
    own, of_monai = (np.asarray(each.affine) for each in (image, NibabelReader().read(path)))
    if not np.allclose(own, of_monai, atol=1e-3):
        spacings = [np.linalg.norm(affine[:3, :3], axis=0).round(3).tolist() for affine in (own, of_monai)]
        raise ValueError(
            f"its sform and `pixdim` must agree, but got spacings {spacings[0]} and {spacings[1]}, of which MONAI "
            "takes the second; write the header anew, or load it by `monai_kd.transforms.LoadVolumed` with "
            "`check=False` here."
        )


class _Search:
    """The volumes below a folder; what is passed over and what is wrong with a series is kept beside them."""

    def __init__(self, root: Path, pattern: str, exclude: PathLike | None) -> None:
        self.root = root
        self.pattern = same_name(pattern)
        self.exclude = None if exclude is None else os.path.realpath(Path(exclude).expanduser())
        self.passed_over: Counter[str] = Counter()
        self.problems: dict[Path, str] = {}
        self.lacking: dict[str, str] = {}  # what says that slices are missing, by folder
        self.identities: dict[str, tuple[str, str]] = {}  # of DICOM series, by folder

    def below(self) -> Iterator[Path]:
        seen = {self.exclude} - {os.path.realpath(self.root)}  # links may lead in circles
        for folder, inner, names in os.walk(self.root, followlinks=True):
            if os.path.realpath(folder) in seen:
                inner[:] = []
                continue
            seen.add(os.path.realpath(folder))
            inner[:] = sorted(name for name in inner if not name.startswith("."))
            paths = [Path(folder, name) for name in sorted(names)]
            files = [path for path in paths if path.is_file()]  # and no link to nowhere
            others = [file for file in files if not _is_volume_file(file)]
            if self._matches(Path(folder)) and self._is_series(Path(folder), others):
                yield Path(folder)
            yield from (file for file in files if self._is_volume(file))

    def _is_volume(self, file: Path) -> bool:
        if not _is_volume_file(file) or file.name.startswith(".") or not self._matches(file):
            return False
        if self.pattern == "*" and _is_mask(file.relative_to(self.root)):
            self.passed_over["mask"] += 1
            return False
        return True

    def _matches(self, path: Path) -> bool:
        return fnmatch(same_name(path.name), self.pattern)

    def _is_series(self, folder: Path, files: list[Path]) -> bool:
        try:
            slices, others = dicom_files(files)
            self.passed_over.update(others)
            if slices:
                series = DicomSeries(slices)
                self.lacking[str(folder)] = series.lacking
                self.identities[str(folder)] = series.identity
                _check_reader(folder)
        except ValueError as error:
            self.problems[folder] = f"{error} To leave the folder out, choose others by `pattern`."
            return True
        return bool(slices)


def _check_reader(folder: Path) -> None:
    if not is_read_first():
        raise ValueError(
            f"a DICOM series must be read by the reader that compares its slices, but got "
            f"MONAI_DICOM_READER={os.environ.get('MONAI_DICOM_READER')} for {folder}; unset MONAI_DICOM_READER."
        )


def _is_mask(path: Path) -> bool:
    folders = any(MASK_FOLDER.fullmatch(part) for part in path.parts[:-1])
    return folders or MASK.fullmatch(_stem(path)) is not None


def _stem(file: Path) -> str:
    return next(file.name[: -len(suffix)] for suffix in SUFFIXES if file.name.lower().endswith(suffix))


def _name(volume: Path, root: Path) -> str:
    parts = [*volume.relative_to(root).parts] or [root.resolve().name]
    if volume.is_file():
        parts[-1] = _stem(Path(parts[-1]))
    return "_".join(parts)
