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

"""The Liver Tumor Segmentation benchmark."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from monai.config import PathLike

VOLUME = re.compile(r"(test-)?(volume|segmentation)-(\d+)\.nii(\.gz)?", re.IGNORECASE)


def lits_cases(folder: PathLike, split: str = "train", exclude: Sequence[str] = ()) -> list[dict[str, str]]:
    """
    Lists the cases of LiTS (Bilic et al., 2019) as published: ``volume-N.nii`` and ``segmentation-N.nii`` (also
    ``.nii.gz``), flat or in "Training Batch 1", "Training Batch 2" and any other folders below `folder`; labels 0
    background, 1 liver, 2 tumour.

    Several published segmentations have an identity affine while their volume has a real one, and the volumes 28 to 47
    have one themselves. The arrays correspond, therefore read LiTS with ``geometry_key="image"``
    (:py:class:`monai_kd.transforms.LoadSliced`, :py:func:`monai_kd.data.slice_dataset`) and
    :py:class:`monai_kd.transforms.CopyAffined`, and train with flips and turns, as EMKD does.

    Args:
        folder: where LiTS was unpacked.
        split: "train" (131 cases with segmentation) or "test" (70 ``test-volume-N.nii`` without).
        exclude: names of cases to leave out, as "volume-12".

    Returns:
        [{"image", "label", "case"}...] sorted by number; no "label" for "test".

    Raises:
        FileNotFoundError: when there is no such folder or no volume in it.
        ValueError: when a volume has no segmentation, or several files have one number.

    Example::

        >>> import tempfile
        >>> from monai_kd.data import write_phantoms
        >>> folder = write_phantoms(tempfile.mkdtemp(), "lits", num_cases=2, size=32, num_slices=4, progress=False)
        >>> [case["case"] for case in lits_cases(folder)]
        ['volume-0', 'volume-1']
    """
    if split not in ("train", "test"):
        raise ValueError(f"`split` must be train or test, but got {split!r}.")
    files: dict[str, dict[int, list[str]]] = {"volume": {}, "segmentation": {}}
    for path in sorted(Path(folder).expanduser().rglob("*-*")):
        match = VOLUME.fullmatch(path.name)
        if match and bool(match[1]) == (split == "test"):
            files[match[2].lower()].setdefault(int(match[3]), []).append(str(path))
    volumes, labels = files["volume"], files["segmentation"]
    if not volumes:
        what = "test-volume-N.nii" if split == "test" else "volume-N.nii"
        raise FileNotFoundError(f"`folder` must hold {what} (or .nii.gz) of LiTS, but got {folder} without any.")
    twice = [paths for found in files.values() for paths in found.values() if len(paths) > 1]
    if twice:
        raise ValueError(f"`folder` must hold each number of LiTS once, but got {twice[0]}" + _more(twice))
    prefix = "test-volume" if split == "test" else "volume"
    names = {number: f"{prefix}-{number}" for number in sorted(volumes) if f"{prefix}-{number}" not in exclude}
    if split == "test":
        return [{"image": volumes[number][0], "case": name} for number, name in names.items()]
    lacking = [name for number, name in names.items() if number not in labels]
    if lacking:
        raise ValueError(f"every volume must have a segmentation, but got none for {', '.join(lacking)}.")
    return [{"image": volumes[number][0], "label": labels[number][0], "case": name} for number, name in names.items()]


def _more(found: list) -> str:
    return f" and {len(found) - 1} more." if len(found) > 1 else "."
