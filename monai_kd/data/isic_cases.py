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

"""Skin lesions as the ISIC challenges publish them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from monai.config import PathLike
from monai.utils import ensure_tuple

from monai_kd.data.photo_pairs import PHOTO_SUFFIXES, refuse_unusable, walk

SPLITS = ("training", "validation", "test")
IMAGES = re.compile(r"(ISIC-?20\d\d)_(?:Task1-2_|Task1_)?(Training|Validation|Test)(?:_v\d)?_(?:Data|Input)", re.I)
PHOTO = re.compile(r"(?!\.).+(?<!_superpixels)")  # the superpixels lie beside the images
MASKS = re.compile(
    r"(ISIC-?20\d\d)_(?:(?:Task1_)(Training|Validation|Test)(?:_v\d)?|(Training|Validation|Test)(?:_v\d)?_Part1)_GroundTruth",
    re.I,
)


def isic_cases(
    folder: PathLike, split: str | None = None, exclude: str | Sequence[str] = (), check: bool = True
) -> list[dict[str, str]]:
    """
    Lists dermoscopy images with the outline of their lesion as the ISIC challenges publish them, at any depth below a
    folder:

    - 2017: ``ISIC-2017_Training_Data/X.jpg`` with ``ISIC-2017_Training_Part1_GroundTruth/X_segmentation.png``, and the
      same for Validation and Test_v2; the superpixels beside the images are passed over;
    - 2018: ``ISIC2018_Task1-2_Training_Input/X.jpg`` with ``ISIC2018_Task1_Training_GroundTruth/X_segmentation.png``.

    Folders of other names (``images/``, ``masks/``) are for :py:func:`~monai_kd.data.endoscopy_cases`. As there, all
    that cannot be used are named in one error.

    Args:
        folder: what was unpacked.
        split: "training", "validation" or "test" of the challenge; default: all that is there.
        exclude: cases to leave out, by their stems; each must be there.
        check: whether to decode all files, some ms each; without, a broken one shows up when it is read.

    Returns:
        [{"image", "label", "case", "dataset"}...] by data set and stem; "case" is the stem, which is one in all
        challenges, "dataset" as "ISIC-2017_Training".

    Raises:
        FileNotFoundError: when there is no such folder of images, or no image.
        ValueError: when the split or an excluded case is unknown, or with all images that cannot be used: without a
            mask, or as of :py:func:`~monai_kd.data.endoscopy_cases`, or in two challenges (2018 holds images of 2017),
            or in two copies of one.

    Example::

        >>> isic_cases("ISIC", split="train")
        Traceback (most recent call last):
        ...
        ValueError: `split` must be one of training, validation, test, or None for all, but got 'train'.
    """
    if split is not None and split not in SPLITS:
        raise ValueError(f"`split` must be one of {', '.join(SPLITS)}, or None for all, but got {split!r}.")
    root = Path(folder).expanduser()
    exclude = ensure_tuple(exclude)
    images, masks = _files(root)
    chosen = {name: files for name, files in images.items() if split is None or name.lower().endswith(f"_{split}")}
    if not any(chosen.values()):
        raise FileNotFoundError(
            f"`folder` must hold images{f' of the split {split}' if split else ''} in ISIC-2017_Training_Data or the "
            f"like, but got {root} with {', '.join(sorted(images)) or 'none'}."
        )
    unknown = sorted(set(exclude) - {stem for files in images.values() for stem in files})
    if unknown:
        raise ValueError(f"`exclude` must name images as ISIC_0000000, but got {', '.join(unknown)}, not in {root}.")
    cases: dict[str, dict[str, str]] = {}
    problems: dict[str, str] = {}
    for name, files in sorted(chosen.items()):
        for stem, image in sorted(files.items()):
            mask = masks.get(name, {}).get(stem, [])
            twice = next((paths for paths in (image, mask) if len(paths) > 1), None)
            if stem in exclude:
                continue
            if stem in cases:
                problems[stem] = f"it is also {cases[stem]['image']}; read one challenge at a time"
            elif twice is not None:
                problems[stem] = f"{twice[1]} is also {twice[0]}; read one copy at a time"
            elif not mask:
                problems[stem] = f"{image[0]} has no mask"
            else:
                cases[stem] = {"image": str(image[0]), "label": str(mask[0]), "case": stem, "dataset": name}
    refuse_unusable(list(cases.values()), problems, root, check)
    return list(cases.values())


def _files(root: Path) -> tuple[dict[str, dict[str, list[Path]]], dict[str, dict[str, list[Path]]]]:
    """Images and masks of each data set by stem, more than one where there are copies."""
    images: dict[str, dict[str, list[Path]]] = {}
    masks: dict[str, dict[str, list[Path]]] = {}
    seen: set[Path] = set()  # a link to a folder is no copy of it
    for folder, _, names in walk(root):
        for pattern, found, ending in ((IMAGES, images, ""), (MASKS, masks, "_segmentation")):
            match = pattern.fullmatch(folder.name)
            if match and folder.resolve() not in seen:
                seen.add(folder.resolve())
                files = found.setdefault("_".join(part for part in match.groups() if part), {})
                for file in (folder / name for name in names):
                    stem = file.stem.removesuffix(ending)
                    if file.suffix.lower() in PHOTO_SUFFIXES and PHOTO.fullmatch(stem) and stem + ending == file.stem:
                        files.setdefault(stem, []).append(file)
    return images, masks
