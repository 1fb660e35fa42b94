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

"""The tasks of ``benchmarks/gains``: real images and labels as tensors, with the splits that are kept apart."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import torch
from PIL import Image

from monai_kd.data import hold_out

PHOTO_SIZE = 96
ORGANS = 4  # brainstem, spinal cord, right and left parotid


@dataclass
class Subset:
    """Images (N, C, H, W) of one subset, their labels (N, 1, H, W), the case and the cluster of each image."""

    images: torch.Tensor
    labels: torch.Tensor
    cases: list[str]
    clusters: list[str]

    def take(self, indices: Sequence[int]) -> Subset:
        """The images at some places."""
        return Subset(
            self.images[list(indices)],
            self.labels[list(indices)],
            [self.cases[i] for i in indices],
            [self.clusters[i] for i in indices],
        )


@dataclass
class Task:
    """What is trained with, what selects the epoch, and what is only evaluated."""

    name: str
    num_classes: int
    train: Subset
    validation: Subset
    test: Subset
    flips: bool = True

    @property
    def in_channels(self) -> int:
        """Channels of an image."""
        return int(self.train.images.shape[1])


def photo(path: Path, size: int) -> np.ndarray:
    """A picture (3, size, size) in [0, 1]."""
    image = Image.open(path).convert("RGB").resize((size, size), Image.Resampling.BILINEAR)
    return np.asarray(image, np.float32).transpose(2, 0, 1) / 255


def mask(path: Path, size: int) -> np.ndarray:
    """A mask (1, size, size) of 0 and 1."""
    image = Image.open(path).convert("L").resize((size, size), Image.Resampling.BOX)
    return (np.asarray(image)[None] > 127).astype(np.uint8)


def photos(pairs: Sequence[tuple[Path, Path]], clusters: Sequence[str] | None = None) -> Subset:
    """Pairs of picture and mask."""
    images = np.stack([photo(image, PHOTO_SIZE) for image, _ in pairs])
    labels = np.stack([mask(label, PHOTO_SIZE) for _, label in pairs])
    cases = [image.stem for image, _ in pairs]
    return Subset(torch.from_numpy(images), torch.from_numpy(labels), cases, list(clusters or cases))


def shuffled(number: int, seed: int = 0) -> list[int]:
    """A fixed order of so many things."""
    return np.random.default_rng(seed).permutation(number).tolist()


def polyps(root: Path) -> Task:
    """Kvasir-SEG with PraNet's split: 800 + 100 of the 900, tested on the 100."""
    folder = root / "kvasir-seg"

    def named(file: str) -> list[tuple[Path, Path]]:
        names = (root / "splits" / file).read_text("utf-8").split()
        return [(folder / "images" / f"{n}.jpg", folder / "masks" / f"{n}.jpg") for n in names]

    development = photos(named("pranet_train_kvasir_900.txt"))
    order = shuffled(len(development.cases))
    return Task(
        "polyps",
        2,
        development.take(order[100:]),
        development.take(order[:100]),
        photos(named("pranet_test_kvasir_100.txt")),
    )


def lesions(root: Path) -> Task:
    """ISIC 2017: 600 to train, 200 to select the epoch, 400 to test."""
    folder = root / "skin-isic2017"
    images = sorted((folder / "images").glob("*.jpg"))
    pairs = [(i, folder / "masks" / f"{i.stem}_segmentation.png") for i in images]
    whole = photos(pairs)
    order = shuffled(len(pairs))
    parts = order[:600], order[600:800], order[800:1200]
    train, validation, test = (whole.take(part) for part in parts)
    return Task("lesions", 2, train, validation, test)


def discs(root: Path, fold: int = 0) -> Task:
    """DRIONS-DB: one of 5 folds is the test, an eighth of the rest selects the epoch."""
    folder = root / "fundus-drions"
    images = sorted(p for p in (folder / "images").iterdir() if p.suffix in (".jpg", ".png"))
    masks = {p.stem: p for p in (folder / "masks").iterdir()}
    whole = photos([(i, masks[i.stem]) for i in images])
    order = shuffled(len(images))
    test = order[fold::5]
    rest = [i for i in order if i not in set(test)]
    size = len(rest) // 8
    parts = rest[size:], rest[:size], test
    train, validation, tested = (whole.take(part) for part in parts)
    return Task("discs", 2, train, validation, tested)


def slices(root: Path, cases: Sequence[str], step: int) -> Subset:
    """The central 64 x 64 pixels of slices: those with an organ, and each ``step``-th other."""
    images: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    names: list[str] = []
    for case in cases:
        volume = np.asarray(nibabel.load(root / "images" / f"{case}.nii.gz").dataobj, np.float32)
        label = np.asarray(nibabel.load(root / "masks" / f"{case}.nii.gz").dataobj).astype(np.uint8)
        label[label > ORGANS] = 0
        volume, label = volume[32:96, 32:96], label[32:96, 32:96]
        organ = label.any(axis=(0, 1))
        kept = [k for k in range(label.shape[2]) if organ[k] or k % step == 0]
        windowed = np.clip((volume[..., kept] + 160) / 400, 0, 1)  # level 40, width 400 HU
        images.extend(windowed.transpose(2, 0, 1)[:, None])
        labels.extend(label[..., kept].transpose(2, 0, 1)[:, None])
        names.extend([case] * len(kept))
    return Subset(torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(labels)), names, list(names))


def organs(root: Path) -> Task:
    """OpenKBP head-and-neck CT with its official split, tested on the 11 validation cases."""
    folder = root / "ct-headneck"
    listed = json.loads((folder / "cases.json").read_text("utf-8"))["cases"]
    names = {"train": [], "validation": []}  # type: dict[str, list[str]]
    for case in listed:
        names[case["split"]].append(case["case"])
    split = hold_out([{"case": name} for name in names["train"]], fraction=0.15, seed=0)
    train = [case["case"] for case in split["train"]]
    selected = [case["case"] for case in split["validation"]]
    return Task(
        "organs",
        ORGANS + 1,
        slices(folder, train, 8),
        slices(folder, selected, 1),
        slices(folder, names["validation"], 1),
        flips=False,  # they would exchange the parotids
    )


TASKS: dict[str, Callable[[Path], Task]] = {"polyps": polyps, "organs": organs, "lesions": lesions}
for _fold in range(5):
    TASKS[f"discs{_fold}"] = lambda root, fold=_fold: discs(root, fold)  # type: ignore[misc]
