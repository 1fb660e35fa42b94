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


def kits19_cases(folder: PathLike, split: str = "train", exclude: Sequence[str] = ()) -> list[dict[str, str]]:
    """
    Lists the cases of KiTS19 (Heller et al., 2019) as published: ``case_00000/imaging.nii.gz`` and
    ``case_00000/segmentation.nii.gz``; labels 0 background, 1 kidney, 2 tumour.

    The files store slices on the first axis; everything here reads them by their affine, in RAS.

    Args:
        folder: the folder ``data`` of the challenge's repository, or the repository.
        split: "train" (210 cases with segmentation) or "test" (90 without).
        exclude: names of cases to leave out, as "case_00015".

    Returns:
        [{"image", "label", "case"}...] sorted by name; no "label" for "test".

    Raises:
        FileNotFoundError: when there are no cases, or segmentations whose imaging was not downloaded.
        ValueError: when `split` is unknown.

    Example::

        >>> import tempfile
        >>> from monai_kd.data import write_phantoms
        >>> folder = write_phantoms(tempfile.mkdtemp(), "kits19", num_cases=2, size=32, num_slices=4, progress=False)
        >>> [case["case"] for case in kits19_cases(folder)]
        ['case_00000', 'case_00001']
    """
    if split not in ("train", "test"):
        raise ValueError(f"`split` must be train or test, but got {split!r}.")
    root = Path(folder).expanduser()
    root = root / "data" if (root / "data").is_dir() else root
    items, absent = [], []
    for case in sorted(path for path in root.glob("case_*") if path.is_dir() and path.name not in exclude):
        image, label = case / "imaging.nii.gz", case / "segmentation.nii.gz"
        if label.is_file() != (split == "train"):
            continue
        if not image.is_file():
            absent.append(case.name)
        items.append({"image": str(image), "case": case.name})
        if split == "train":
            items[-1]["label"] = str(label)
    if absent:
        raise FileNotFoundError(
            f"every case must have imaging.nii.gz, but got none in {len(absent)} of {len(items)}: "
            f"{', '.join(absent[:10])}{' ...' if len(absent) > 10 else ''}; "
            "the challenge's repository downloads them with its `get_imaging` script."
        )
    if not items:
        raise FileNotFoundError(f"`folder` must hold case_00000 and so on of KiTS19's {split} set, but got {folder}.")
    return items
