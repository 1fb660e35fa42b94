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

"""Pairs of a photograph and its mask that can be used, or why not."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from multiprocessing.pool import ThreadPool
from pathlib import Path

from PIL import Image

from monai_kd.data.problem_lines import problem_lines
from monai_kd.transforms.load_mask import mask_pixels
from monai_kd.transforms.open_photo import check_depth, open_photo

PHOTO_SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".bmp", ".webp", ".jp2")
PART = r"(_(c|seq)\d+)?"  # PolypGen: images_C1, masks_seq12
IMAGE_FOLDER = re.compile(r"(images?|original|bbdd)" + PART, re.IGNORECASE)
MASK_FOLDER = re.compile(r"(masks?|labels?|ground[ _]truth|gt|gtpolyp)" + PART, re.IGNORECASE)


def refuse_unusable(cases: Sequence[Mapping[str, str]], problems: Mapping[str, str], root: Path, check: bool) -> None:
    """
    Name all pairs that cannot be used in one error. Equal reasons are counted, and three of their cases named.

    Args:
        cases: [{"image", "label", "case"}...], files of a photograph and of its mask.
        problems: what is wrong with others, by case.
        root: where they were looked for.
        check: whether to decode the files of `cases`: both must be readable, of one size, and the mask must be one.

    Raises:
        ValueError: when there is a problem.
    """
    reasons: list[str | None] = []
    if check:
        with ThreadPool(4) as pool:
            reasons = pool.map(_problem, cases)
    found = dict(problems) | {case["case"]: reason for case, reason in zip(cases, reasons) if reason}
    if found:
        some = f"{next(iter(found))!r}{', ...' if len(found) > 1 else ''}"
        raise ValueError(
            f"{len(found)} images in {root} cannot be used; repair them or leave them out with exclude=[{some}] in the "
            "call that lists them, which in a bundle is `cases`, `test_cases` or `split` of configs/train.yaml:"
            f"{problem_lines(found)}"
        )


def walk(root: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """The folders below `root` but for hidden ones, their folders and files, also behind links that do not go up."""
    for place, inner, names in os.walk(root, followlinks=True):
        folder = Path(place)
        above = {each.resolve() for each in (folder, *folder.absolute().parents)}
        inner[:] = sorted(name for name in inner if not name.startswith(".") and (folder / name).resolve() not in above)
        yield folder, list(inner), sorted(names)


def _problem(case: Mapping[str, str]) -> str | None:
    """What is wrong with a pair, once both files are decoded."""
    try:
        image, label = open_photo(case["image"]), open_photo(case["label"])
        check_depth(image, case["image"])
        mask_pixels(label, case["label"])
    except (OSError, RuntimeError, ValueError) as error:
        return str(error)
    files = f"({case['image']}, {case['label']})"
    if image.size != label.size:
        sizes = [f"{width} x {height}" for width, height in (image.size, label.size)]
        turned = ", transposed" if image.size == label.size[::-1] else ""
        return f"image and mask must have one size, but got {' and '.join(sizes)}{turned} {files}"
    turns = [picture.info["orientation"] for picture in (image, label)]
    if turns[0] != turns[1] and _stored_size(image) == _stored_size(label):
        return (
            f"image and mask must have one EXIF orientation, but got {turns[0]} and {turns[1]} {files}; look how the "
            "mask lies, and save both that way without EXIF"
        )
    return None


def _stored_size(image: Image.Image) -> tuple[int, int]:
    """Before it was turned as its EXIF orientation says, of which 5 to 8 are by 90 degrees."""
    return image.size[::-1] if image.info["orientation"] > 4 else image.size
