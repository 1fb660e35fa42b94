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

"""Which slices of which case carry which label, and which cases cannot be used."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from monai.config import PathLike

from monai_kd.data.case_name import case_name
from monai_kd.data.problem_lines import problem_lines
from monai_kd.data.progress_bar import progress_bar
from monai_kd.data.write_aside import replace_file
from monai_kd.transforms.check_hounsfield import hounsfield_problem
from monai_kd.transforms.check_nifti import NIFTI
from monai_kd.transforms.check_volume import check_grids, check_volume
from monai_kd.transforms.dicom_files import log_passed_over
from monai_kd.transforms.dicom_series import split_series
from monai_kd.transforms.lacking_slices import log_lacking
from monai_kd.transforms.load_slice import LoadSlice, Volume

CACHE_FILE = "case_scans.json"
READER = "4"  # a new number makes scans of an older reader, or of fewer checks, void


def scan_cases(
    cases: Sequence[Mapping[str, Any]],
    geometry_key: str | None = None,
    check_images: bool = True,
    cache_dir: PathLike | None = None,
    num_workers: int = 2,
    progress: bool = True,
) -> list[dict[str, Any]]:
    """
    Reads every case once and says how many axial slices it has and on which of them each label lies; all cases that
    cannot be used are named in one error.

    A case is refused when a file is missing, damaged (compressed files are read to their checksum) or cannot be read,
    when image and label differ in shape or affine, when the affine is not invertible, and when the image is not in HU.
    Slices are numbered as :py:class:`monai_kd.transforms.LoadSlice` numbers them.

    Args:
        cases: items with the keys "image" and, if there is one, "label" (paths) and "case" (name).
        geometry_key: "image" where the label's header is not to be trusted and its array corresponds voxel by voxel to
            the image's (LiTS as published); default: affines must agree to 1e-3 mm.
        check_images: whether to read the images' values too, which takes as long as decoding them; without it only
            their headers are compared and an unreadable or wrongly scaled image shows up at the first slice. Of an
            uncompressed NIfTI file five slices are read; the others are checked as they are loaded.
        cache_dir: folder for ``case_scans.json``, which keeps the result for unchanged files (path, size, time).
        num_workers: threads.
        progress: whether to show a progress bar.

    Returns:
        for each case ``{"num_slices": int, "labels": {label: [slices]}, "stamp": str}``; the stamp changes with the
        files.

    Raises:
        ValueError: with all the cases that cannot be used and the reason for each.

    Example::

        >>> scan_cases([{"image": "missing.nii.gz", "case": "a"}], progress=False)
        Traceback (most recent call last):
        ...
        ValueError: 1 of 1 cases cannot be used; repair them or leave them out (`exclude`):
          a: missing.nii.gz is not there
    """
    if geometry_key not in (None, "image"):
        raise ValueError(f'`geometry_key` must be "image" or None, but got {geometry_key!r}.')
    known = _read_cache(cache_dir)
    scanner = _Scanner(geometry_key, check_images, known)
    with ThreadPool(max(1, num_workers)) as pool:
        results = list(progress_bar(pool.imap(scanner, cases), "Scanning cases", len(cases), progress))
    problems = [(case_name(case), r["problem"]) for case, r in zip(cases, results) if "problem" in r]
    problems += _split_series(cases, results)
    passed_over: Counter[str] = Counter()
    for result in results:
        passed_over.update(result.get("passed_over", {}))
    log_passed_over(passed_over, f"{len(cases)} cases")
    log_lacking({case_name(case): r.get("lacking", "") for case, r in zip(cases, results)})
    _write_cache(cache_dir, {r["stamp"]: r for r in results if "problem" not in r}, known)
    if problems:
        raise ValueError(
            f"{len(problems)} of {len(cases)} cases cannot be used; repair them or leave them out (`exclude`):"
            f"{problem_lines(dict(problems))}"
        )
    return [
        {
            "num_slices": r["num_slices"],
            "labels": {int(label): list(at) for label, at in r["labels"].items()},
            "stamp": r["stamp"],
        }
        for r in results
    ]


class _Scanner:
    """Scans one case; each thread has a reader of its own, because a reader decodes one volume at a time."""

    def __init__(self, geometry_key: str | None, check_images: bool, known: Mapping[str, Any]) -> None:
        self.geometry_key = geometry_key
        self.check_images = check_images
        self.known = known
        self.local = threading.local()

    def __call__(self, case: Mapping[str, Any]) -> dict[str, Any]:
        if "image" not in case:
            return {"problem": f'it has no "image", only {sorted(case)}'}
        paths = [Path(case[key]).expanduser() for key in ("image", "label") if key in case]
        missing = [str(path) for path in paths if not path.exists()]
        if missing:
            return {"problem": f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not there"}
        stamp = _digest(*(f"{path.resolve()}-{_state(path)}" for path in paths), str(self.geometry_key), READER)
        if stamp in self.known and self.known[stamp]["checked"] >= self.check_images:
            return dict(self.known[stamp])
        try:
            return {**self._scan(*paths), "stamp": stamp, "checked": self.check_images}
        except Exception as error:  # whatever is wrong with it, it belongs on the list
            known = isinstance(error, (RuntimeError, ValueError))
            return {"problem": str(error) if known else f"{type(error).__name__}: {error}"}

    def _scan(self, image: Path, label: Path | None = None) -> dict[str, Any]:
        if not hasattr(self.local, "reader"):
            self.local.reader = LoadSlice(num_volumes=1)
        passed_over: Counter[str] = Counter()
        of_image: dict[str, Any] = {}

        def read(path: Path) -> Volume:
            volume = self.local.reader.volume(path)
            series = volume.series
            passed_over.update(series.passed_over if series else {})
            if series and path == image:
                of_image.update(series=series.identity, lacking=series.lacking)
            return volume

        if self.check_images:
            volume = read(image)
            problem = hounsfield_problem(*volume.value_range)
            if problem:
                raise ValueError(f"the image must be in Hounsfield units, but got {problem}")
            shape, affine = volume.array.shape, volume.affine
        else:
            shape, affine = _header(image, read)
        where: dict[int, list[int]] = {}
        if label is not None:
            volume = read(label)
            check_grids(shape, affine, volume.array.shape, volume.affine, self.geometry_key is None)
            where = _slices_of_labels(volume._replace(affine=affine))
        axis, _ = Volume(None, affine, (0, 0)).axial
        return {
            "num_slices": int(shape[axis]),
            "labels": {str(value): where[value] for value in where},
            "passed_over": dict(passed_over),
            **of_image,
        }


def _split_series(cases: Sequence[Mapping[str, Any]], results: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Cases whose images are parts of one DICOM series."""
    names = {str(case["image"]): case_name(case) for case, r in zip(cases, results) if "series" in r}
    identities = {str(case["image"]): tuple(r["series"]) for case, r in zip(cases, results) if "series" in r}
    return [(names[image], problem) for image, problem in split_series(identities).items()]


def _slices_of_labels(label: Volume) -> dict[int, list[int]]:
    axis, head_first = label.axial
    where: dict[int, list[int]] = {}
    size = label.array.shape[axis]
    for stored in range(size):
        section = tuple(stored if a == axis else slice(None) for a in range(3))
        index = size - 1 - stored if head_first else stored
        values = np.unique(np.asarray(label.array[section]))
        wrong = values[~np.isfinite(values) | (values != np.rint(values))]
        if wrong.size:
            raise ValueError(f"the label must hold whole numbers, but got {wrong[0]:g}")
        for value in map(int, values):
            if value != 0:
                where.setdefault(value, []).append(index)
    return {value: sorted(where[value]) for value in sorted(where)}


def _header(image: Path, read: Any) -> tuple[Sequence[int], np.ndarray]:
    if image.name.lower().endswith(NIFTI):
        check_volume(image, whole=False)
        header: Any = nibabel.load(image)
        return header.shape[:3], np.asarray(header.affine)
    volume = read(image)
    return volume.array.shape, volume.affine


def _state(path: Path) -> str:
    files = sorted(file for file in path.iterdir() if file.exists()) if path.is_dir() else [path]
    states = [file.stat() for file in files]
    return _digest(*(f"{file.name}-{state.st_size}-{state.st_mtime_ns}" for file, state in zip(files, states)))


def _digest(*parts: str) -> str:
    return hashlib.sha256("|".join(parts).encode()).hexdigest()[:24]


def _read_cache(cache_dir: PathLike | None) -> dict[str, Any]:
    file = Path(cache_dir).expanduser() / CACHE_FILE if cache_dir is not None else None
    if file is None or not file.is_file():
        return {}
    try:
        return dict(json.loads(file.read_text("utf-8")))
    except (json.JSONDecodeError, TypeError, ValueError):
        return {}  # a half-written file costs a scan, nothing else


def _write_cache(cache_dir: PathLike | None, scans: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    if cache_dir is None or all(known.get(stamp) == scan for stamp, scan in scans.items()):
        return
    replace_file(Path(cache_dir).expanduser() / CACHE_FILE, json.dumps({**_read_cache(cache_dir), **scans}))
