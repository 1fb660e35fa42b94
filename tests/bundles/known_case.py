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

"""A case whose image tells its label, whatever a transform has done to both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from monai.transforms import RandomizableTrait, RandomizableTransform
from PIL import Image
from scipy.ndimage import maximum_filter, minimum_filter

from tests.bundles.journey import BUNDLES, HEADNECK, KIDNEY, LIVER, PHOTOS

# the pixel's value before normalisation, by class of the label
HOUNSFIELD = {LIVER: [-30, 130], KIDNEY: [-170, 250], HEADNECK: [-150, -62, 26, 114, 202]}
GREY = [40, 220]
# how many classes a label has, the background included
CLASSES = {name: len(HOUNSFIELD.get(name, GREY)) for name in BUNDLES}


def shape_of_classes(classes: int, size: Sequence[int]) -> np.ndarray:
    """A map without any symmetry: a corner of each class beside the last one's, and a spot."""
    x, y = (np.arange(n) / n for n in size)
    x, y = x[:, None], y[None, :]
    label = np.zeros(size, dtype=np.uint8)
    label[(x > 0.28) & (x < 0.7) & (y > 0.3) & (y < 0.46)] = 1
    label[(x > 0.28) & (x < 0.45) & (y > 0.3) & (y < 0.72)] = 1
    label[(x - 0.62) ** 2 + (y - 0.64) ** 2 < 0.005] = 1
    if classes > 2:
        stripe = np.floor(7 * (x + 0.5 * y)) % (classes - 1)
        label[label > 0] = 1 + stripe.astype(np.uint8)[label > 0]
    return label


def known_case(name: str, folder: Path, depth: int = 3) -> dict[str, Any]:
    """A case of a bundle whose image tells its label."""
    suffix = "png" if name in PHOTOS else "nii.gz"
    paths = {key: folder / f"{key}.{suffix}" for key in ("image", "label")}
    case = {key: str(path) for key, path in paths.items()} | {"case": "known", "slice": 1}
    if name in PHOTOS:
        label = shape_of_classes(2, (150, 120))
        grey = np.asarray(GREY, dtype=np.uint8)[label]
        Image.fromarray(np.stack([grey, grey, grey], -1)).save(paths["image"])
        Image.fromarray(255 * label).save(paths["label"])
        return case
    size = (64, 64) if name == HEADNECK else (400, 392)
    levels = HOUNSFIELD[name]
    label = np.repeat(shape_of_classes(len(levels), size)[:, :, None], depth, axis=2)
    image = np.asarray(levels, dtype=np.int16)[label]
    image[0, 0] = -1000  # air, as in every scan
    task = label if name == HEADNECK else 2 * label  # the tumour is label 2
    affine = np.diag([-1.0, -1.0, 3.0, 1.0])
    nibabel.save(nibabel.Nifti1Image(image, affine), paths["image"])
    nibabel.save(nibabel.Nifti1Image(task, affine), paths["label"])
    return case


def told(name: str, image: torch.Tensor) -> np.ndarray:
    """The label that an image tells, whatever its brightness is by now."""
    values = np.asarray(image, dtype=float).mean(axis=0)
    if name != HEADNECK:
        low, high = np.quantile(values, [0.02, 0.995])
        return (values > (low + high) / 2).astype(int)
    values = values if values.max() > 2 else 400 * values - 160  # the window of -160 to 240 HU
    return np.clip(np.rint((values + 150) / 88), 0, 4).astype(int)


def away_from_edges(label: np.ndarray, width: int) -> np.ndarray:
    """Where the label does not change within some pixels, and the border is not near."""
    size = 2 * width + 1
    label = label.astype(int)
    low = minimum_filter(label, size, mode="constant", cval=-1)
    return low == maximum_filter(label, size)


def assert_agree(name: str, image: torch.Tensor, label: np.ndarray, after: str) -> None:
    """All but edges: an interpolated image has values of its own there."""
    steady = away_from_edges(label, width=2 if name == HEADNECK else 3)
    assert (steady & (label > 0)).sum() > 0.1 * (label > 0).sum()
    wrong = ((told(name, image) != label) & steady).sum()
    assert wrong <= 0.01 * (label > 0).sum(), f"{after}: image and label differ in {wrong} pixels"


Steps = Iterator[tuple[str, dict[str, Any]]]


def steps(transforms: Sequence[Any], item: dict[str, Any], seed: int) -> Steps:
    """Name and result of each transform; the random ones act for certain."""
    for number, transform in enumerate(transforms):
        inner = getattr(transform, "transform", transform)
        if hasattr(inner, "prob"):
            inner.prob = 1.0
        if isinstance(transform, (RandomizableTrait, RandomizableTransform)):
            transform.set_random_state(seed + number)
        item = transform(item)
        item = item[0] if isinstance(item, list) else item  # of several patches
        yield type(transform).__name__, item
