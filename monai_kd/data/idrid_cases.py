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

"""Optic discs as IDRiD publishes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from monai.config import PathLike
from monai.utils import ensure_tuple

from monai_kd.data.photo_pairs import PHOTO_SUFFIXES, refuse_unusable, walk

SPLITS = {"training": "a. Training Set", "test": "b. Testing Set"}
IMAGES, MASKS, DISC = "1. Original Images", "2. All Segmentation Groundtruths", "5. Optic Disc"


def idrid_cases(
    folder: PathLike, split: str | None = None, exclude: str | Sequence[str] = (), check: bool = True
) -> list[dict[str, str]]:
    """
    Lists photographs of the fundus with the outline of their optic disc as IDRiD publishes them, at any depth below a
    folder: ``1. Original Images/a. Training Set/IDRiD_01.jpg`` with ``2. All Segmentation Groundtruths/a. Training
    Set/5. Optic Disc/IDRiD_01_OD.tif`` in ``A. Segmentation``, and the same for ``b. Testing Set``. The masks of
    lesions beside those of the disc, and the images of the data set's other two parts, are passed over.

    Folders of other names (``images/``, ``masks/``) are for :py:func:`~monai_kd.data.endoscopy_cases`. As there, all
    that cannot be used are named in one error.

    Args:
        folder: what was unpacked.
        split: "training" or "test" of the challenge; default: all that is there.
        exclude: cases to leave out, by their stems; each must be there.
        check: whether to decode all files, 0.1 s each; without, a broken one shows up when it is read.

    Returns:
        [{"image", "label", "case", "dataset"}...] by split and stem; "case" is the stem, "dataset" "IDRiD_Training" or
        "IDRiD_Test".

    Raises:
        FileNotFoundError: when there is no image.
        ValueError: when the split or an excluded case is unknown, or with all images that cannot be used: without a
            mask, there twice, or as of :py:func:`~monai_kd.data.endoscopy_cases`.

    Example::

        >>> idrid_cases("IDRiD", split="validation")
        Traceback (most recent call last):
        ...
        ValueError: `split` must be one of training, test, or None for all, but got 'validation'.
    """
    if split is not None and split not in SPLITS:
        raise ValueError(f"`split` must be one of {', '.join(SPLITS)}, or None for all, but got {split!r}.")
    root = Path(folder).expanduser()
    exclude = ensure_tuple(exclude)
    images = {name: _images(root, place) for name, place in SPLITS.items()}
    chosen = {name: files for name, files in images.items() if split in (None, name)}
    if not any(chosen.values()):
        raise FileNotFoundError(
            f"`folder` must hold images{f' of the split {split}' if split else ''} in A. Segmentation/{IMAGES}, beside "
            f"{MASKS}, but got {root} without."
        )
    unknown = sorted(set(exclude) - {file.stem for files in images.values() for file in files})
    if unknown:
        raise ValueError(f"`exclude` must name images as IDRiD_01, but got {', '.join(unknown)}, not in {root}.")
    cases: dict[str, dict[str, str]] = {}
    problems: dict[str, str] = {}
    for name, files in chosen.items():
        for image in files:
            stem = image.stem
            place = image.parents[2] / MASKS / SPLITS[name] / DISC
            found = sorted(file for file in place.glob(f"{stem}_OD.*") if file.suffix.lower() in PHOTO_SUFFIXES)
            if stem in exclude:
                continue
            if stem in cases:
                problems[stem] = f"{image} is also {cases[stem]['image']}; read one copy at a time"
            elif len(found) != 1:
                there = f"{len(found)} masks" if found else "no mask"
                problems[stem] = f"{image} has {there} {place / f'{stem}_OD.tif'}"
            else:
                dataset = f"IDRiD_{name.title()}"
                cases[stem] = {"image": str(image), "label": str(found[0]), "case": stem, "dataset": dataset}
    refuse_unusable(list(cases.values()), problems, root, check)
    return list(cases.values())


def _images(root: Path, place: str) -> list[Path]:
    """The images of a split in each folder that has the masks beside them."""
    folders = {folder.resolve(): folder for folder, inner, _ in walk(root) if MASKS in inner}  # a link is no copy
    places = [folder / IMAGES / place for folder in folders.values()]
    files = [file for each in places for file in each.glob("IDRiD_*")]
    return sorted(file for file in files if file.suffix.lower() in PHOTO_SUFFIXES)
