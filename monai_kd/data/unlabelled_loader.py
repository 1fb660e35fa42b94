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

"""Images that nobody labelled, as batches beside the labelled ones."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

from monai.config import PathLike
from monai.data import DataLoader, Dataset
from monai.transforms import Compose, MapTransform

from monai_kd.data.find_volumes import find_volumes
from monai_kd.data.frames import readable_below
from monai_kd.data.photo_pairs import PHOTO_SUFFIXES
from monai_kd.data.quiet_workers import quiet_workers
from monai_kd.data.slice_dataset import slice_dataset

MIXED = "mixed"
KINDS = ("slices", "volumes", "photos")


def unlabelled_loader(
    folder: PathLike | None,
    transform: Compose,
    kind: str,
    batch_size: int,
    num_workers: int = 0,
    **slice_options: Any,
) -> DataLoader | str | None:
    """
    Builds a loader of images without labels for ``DistillationHandler(unlabelled=...)``. They get the transforms of the
    labelled images, whose parts for the label are left out.

    Args:
        folder: where the images are, at any depth. None gives no loader, so that a bundle can leave it out. The word
            ``mixed`` is handed on: the handler blends the labelled images (a folder of that name is ``./mixed``).
        transform: the transforms of the labelled images, as dictionary transforms.
        kind: "slices" or "volumes" of CT (files or DICOM series), or "photos".
        batch_size: images (volumes) a batch.
        num_workers: processes of the loader.
        slice_options: for slices, see :py:func:`monai_kd.data.slice_dataset`.

    Returns:
        a shuffled loader that leaves out the last batch if it is not full, or None, or ``mixed``.

    Raises:
        FileNotFoundError: when the folder is missing or holds no image.
        ValueError: when ``kind`` is another, or the folder holds fewer images than a batch.

    Example::

        >>> unlabelled_loader(None, Compose([]), "photos", batch_size=4) is None
        True
    """
    if kind not in KINDS:
        raise ValueError(f"`kind` must be one of {', '.join(KINDS)}, but got {kind!r}.")
    if folder is None or folder == MIXED:
        return folder
    own = without_labels(transform)
    dataset: Dataset
    if kind == "slices":
        dataset = slice_dataset(find_volumes(folder), own, **slice_options)
    else:
        cases = photos_below(folder) if kind == "photos" else find_volumes(folder)
        dataset = Dataset(cases, own)
    if len(dataset) < batch_size:
        raise ValueError(
            f"`unlabelled_dir` must hold at least a batch of {batch_size} images, but got {len(dataset)} in {folder}; "
            "lower `batch_size` or add images."
        )
    loader = DataLoader(dataset, batch_size=batch_size, shuffle=True, drop_last=True, num_workers=num_workers)
    quiet_workers(loader)
    return loader


def without_labels(transform: Compose) -> Compose:
    """A copy of dictionary transforms that passes over keys which an item does not have."""
    own = copy.deepcopy(transform)
    for each in own.flatten().transforms:
        if isinstance(each, MapTransform):
            each.allow_missing_keys = True
    return own


def photos_below(folder: PathLike) -> list[dict[str, str]]:
    """
    The pictures below a folder, named after their place in it. Folders of masks beside images are passed over.

    Raises:
        FileNotFoundError: when there is none.
    """
    root = Path(folder).expanduser()
    photos = [path for path in readable_below(root) if path.suffix.lower() in PHOTO_SUFFIXES]
    found = []
    for path in photos:
        case = "_".join(path.relative_to(root).with_suffix("").parts)
        found.append({"image": str(path), "case": case})
    if not found:
        raise FileNotFoundError(
            f"`folder` must hold pictures ({', '.join(PHOTO_SUFFIXES)}), but got {os.fspath(folder)}."
        )
    return found
