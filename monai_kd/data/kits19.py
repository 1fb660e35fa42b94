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

"""The Kidney Tumor Segmentation challenge of 2019."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from monai.config import PathLike

LABELS = ("segmentation.nii.gz", "aggregated_MAJ_seg.nii.gz")  # KiTS19 and KiTS23, KiTS21
PLACES = ("data", "kits21/data", "dataset")  # in the repositories of KiTS19 and KiTS21, KiTS21, KiTS23


def kits19_cases(folder: PathLike, split: str = "train", exclude: Sequence[str] = ()) -> list[dict[str, str]]:
    """
    Lists the cases of KiTS19 (Heller et al., 2019) as published: ``case_00000/imaging.nii.gz`` and
    ``case_00000/segmentation.nii.gz``; labels 0 background, 1 kidney, 2 tumour. The layouts of its successors are read
    too: KiTS21, whose label is ``aggregated_MAJ_seg.nii.gz``, and KiTS23. They have a label 3 more, cyst, which a task
    must map (``{0: 0, 1: 1, 2: 2, 3: 1}`` as KiTS19, where cysts are kidney).

    The files store slices on the first axis; everything here reads them by their affine, in RAS.

    Args:
        folder: the folder of the cases (``data``, ``kits21/data``, ``dataset``), or the challenge's repository.
        split: "train" (210 cases with segmentation) or "test" (90 without).
        exclude: names of cases to leave out, as "case_00015".

    Returns:
        [{"image", "label", "case"}...] sorted by name; no "label" for "test".

    Raises:
        FileNotFoundError: when there are no cases, cases of KiTS21 whose annotations were not aggregated, or
            segmentations whose imaging was not downloaded.
        ValueError: when `split` or a case of `exclude` is unknown.

    Example::

        >>> import tempfile
        >>> from monai_kd.data import write_phantoms
        >>> folder = write_phantoms(tempfile.mkdtemp(), "kits19", num_cases=2, size=32, num_slices=4, progress=False)
        >>> [case["case"] for case in kits19_cases(folder)]
        ['case_00000', 'case_00001']
    """
    if split not in ("train", "test"):
        raise ValueError(f"`split` must be train or test, but got {split!r}.")
    cases = _cases(Path(folder).expanduser())
    unknown = sorted(set(exclude) - {case.name for case in cases})
    if unknown and cases:
        raise ValueError(f"`exclude` must name cases as case_00000, but got {', '.join(unknown)}, not in {folder}.")
    items, absent = [], []
    for case in (case for case in cases if case.name not in exclude):
        image, label = case / "imaging.nii.gz", _label(case)
        if (label is not None) != (split == "train"):
            continue
        if not image.is_file():
            absent.append(case.name)
        items.append({"image": str(image), "case": case.name})
        if label is not None:
            items[-1]["label"] = str(label)
    if absent:
        raise FileNotFoundError(
            f"every case must have imaging.nii.gz, but got none in {len(absent)} of {len(items)}: "
            f"{', '.join(absent[:10])}{' ...' if len(absent) > 10 else ''}; "
            "the challenge's repository downloads them with its `get_imaging` script."
        )
    if not items:
        there = (
            f"{len(cases)} cases {'without' if split == 'train' else 'with'} {' or '.join(LABELS)} in " if cases else ""
        )
        raise FileNotFoundError(
            f"`folder` must hold case_00000 and so on of KiTS19's {split} set, in {', '.join(PLACES)} or itself, "
            f"but got {there}{folder}."
        )
    return items


def _cases(root: Path) -> list[Path]:
    """The folders of the cases, in the folder itself or where a repository has them."""
    for place in (root, *(root / name for name in PLACES)):
        found = sorted(path for path in place.glob("case_*") if path.is_dir())
        if found:
            return found
    return []


def _label(case: Path) -> Path | None:
    found = [case / name for name in LABELS if (case / name).is_file()]
    if len(found) > 1:
        raise ValueError(f"a case must have one of {' and '.join(LABELS)}, but got both in {case}; remove one.")
    annotated = sorted(path.name for path in case.glob("*") if path.name in ("raw", "segmentations"))
    if annotated and not found:
        raise FileNotFoundError(
            f"a case of KiTS21 must have {LABELS[1]}, but got only {' and '.join(annotated)} in {case}; "
            "the challenge's repository aggregates the annotations."
        )
    return found[0] if found else None
