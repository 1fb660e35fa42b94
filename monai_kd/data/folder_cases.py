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

"""Cases in a plain folder."""

from __future__ import annotations

import difflib
import json
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.config import PathLike

from monai_kd.data.same_name import same_name

logger = logging.getLogger(__name__)
SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")
LABEL_FOLDERS = ("labels", "masks", "segmentations")
SPLITS = ("train", "training", "validation", "valid", "val", "test", "testing")


def folder_cases(
    folder: PathLike, split: str | None = None, with_labels: bool = True, exclude: Sequence[str] = ()
) -> list[dict[str, str]]:
    """
    Lists the cases of a folder with ``images/`` and ``labels/`` (or ``masks/``, ``segmentations/``) in which image and
    label of a case have one stem: NIfTI, NRRD or MetaImage files, or a folder for each DICOM series.

    A file ``cases.json`` may name the split of each case: a list of ``{"case": stem, "split": name}``, or such a list
    under "cases". It must name existing cases of the split that is asked for, each case once, and no split that looks
    misspelt. Images that it does not name are counted in the log. For a list in the form of the Medical Segmentation
    Decathlon use :py:func:`monai.data.load_decathlon_datalist`.

    Args:
        folder: the folder that holds them.
        split: only the cases that ``cases.json`` puts there; default: all.
        with_labels: whether cases have labels; without, only images are listed, for inference.
        exclude: stems of cases to leave out; each must be there.

    Returns:
        [{"image", "label", "case"}...] sorted by stem.

    Raises:
        FileNotFoundError: when a folder is missing or holds no case.
        ValueError: when images and labels do not pair up, a stem occurs twice, the split or a case of `exclude` is
            unknown, or with all that is wrong in ``cases.json``.

    Example::

        >>> import tempfile
        >>> from monai_kd.data import write_phantoms
        >>> folder = write_phantoms(tempfile.mkdtemp(), "folder", num_cases=2, size=32, num_slices=4, progress=False)
        >>> [case["case"] for case in folder_cases(folder)]
        ['phantom_000', 'phantom_001']
    """
    root = Path(folder).expanduser()
    images = _stems(root / "images")
    exclude = [same_name(stem) for stem in exclude]
    unknown = sorted(set(exclude) - set(images))
    if unknown:
        raise ValueError(f"`exclude` must name cases in {root / 'images'}, but got {', '.join(unknown)}.")
    wanted = [stem for stem in images if stem not in exclude]
    if split is not None:
        members = _members(root / "cases.json", split, images)
        wanted = [stem for stem in wanted if stem in members]
    if not wanted:
        raise FileNotFoundError(f"`folder` must hold cases{f' of split {split!r}' if split else ''}, but got {root}.")
    if not with_labels:
        return [{"image": images[stem], "case": stem} for stem in wanted]
    found = [root / name for name in LABEL_FOLDERS if (root / name).is_dir()]
    if len(found) != 1:
        raise FileNotFoundError(
            f"`folder` must hold one of {', '.join(LABEL_FOLDERS)}, but got {[path.name for path in found]} in {root}; "
            "for images alone pass `with_labels=False`."
        )
    labels = _stems(found[0])
    lonely = [stem for stem in wanted if stem not in labels] + sorted(set(labels) - set(images))
    if lonely:
        raise ValueError(f"images and labels must have the same stems, but got only one of both for {lonely}.")
    return [{"image": images[stem], "label": labels[stem], "case": stem} for stem in wanted]


def _stems(folder: Path) -> dict[str, str]:
    if not folder.is_dir():
        there = "without it" if folder.parent.is_dir() else "which does not exist"
        raise FileNotFoundError(f"`folder` must hold {folder.name}/, but got {folder.parent}, {there}.")
    stems: dict[str, str] = {}
    for path in sorted(folder.iterdir()):
        suffix = next((suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)), None)
        if path.name.startswith(".") or (suffix is None and not path.is_dir()):
            continue
        stem = same_name(path.name[: -len(suffix)] if suffix and path.is_file() else path.name)
        if stem in stems:
            raise ValueError(f"a stem must occur once, but got {stems[stem]} and {path}.")
        stems[stem] = str(path)
    return dict(sorted(stems.items()))


def _members(file: Path, split: str, images: Mapping[str, str]) -> set[str]:
    """The cases of a split, when the table is right."""
    if not file.is_file():
        raise FileNotFoundError(f'`split` needs {file}, a list of {{"case", "split"}}, but got no such file.')
    rows = _rows(file)
    splits = {name for _, name in rows}
    if split not in splits:
        raise ValueError(f"`split` must be one of {', '.join(sorted(splits))} in {file}, but got {split!r}.")
    members = {case for case, name in rows if name == split}
    counts = Counter(case for case, _ in rows)
    problems = [f"{case}: it is there {count} times" for case, count in counts.items() if count > 1]
    problems += [f"{case}: there is no such image" for case in sorted(members - set(images))]
    problems += [f"{name!r}: this split looks misspelt" for name in sorted(splits) if _is_misspelt(name, splits)]
    if problems:
        lines = "".join(f"\n  {problem}" for problem in problems)
        raise ValueError(f"{file} must name existing cases once and splits alike, but got:{lines}")
    left_out = sorted(set(images) - set(counts))
    if left_out:
        logger.warning(f"{file} names no split of {len(left_out)} images: {', '.join(left_out[:5])}")
    return members


def _rows(file: Path) -> list[tuple[str, str]]:
    """Case and split of each row."""
    try:
        table = json.loads(file.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{file} must be JSON in UTF-8, but got {error}.") from error
    rows: Any = table.get("cases") if isinstance(table, dict) else table
    if not isinstance(rows, list):
        raise ValueError(f'{file} must be a list of {{"case", "split"}}, but got {type(rows).__name__}.')
    for row in rows:
        if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in ("case", "split")):
            raise ValueError(f'{file} must have the texts "case" and "split" in each row, but got {row}.')
    return [(same_name(row["case"]), row["split"]) for row in rows]


def _is_misspelt(name: str, splits: set[str]) -> bool:
    """Whether it is nearly the name of another split or a usual one: trian, Train beside train, a space behind."""
    plain = name.strip().lower()
    twins = [other for other in splits if other.strip().lower() == plain]
    if name != name.strip() or len(twins) > 1:
        return True
    longer = plain.startswith(SPLITS) or plain.endswith(SPLITS)  # trainval, testA
    close = difflib.get_close_matches(plain, SPLITS, cutoff=0.9 if longer else 0.75)
    return plain.isalpha() and plain not in SPLITS and bool(close)
