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

"""Soft labels that were computed before training."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from pathlib import Path
from typing import Any

import torch
from monai.config import KeysCollection, PathLike
from monai.data.meta_tensor import MetaTensor
from monai.transforms import MapTransform

from monai_kd.transforms.soft_label_file import (
    WEIGHTS_KEY,
    key_differences,
    read_soft_label,
    soft_label_path,
    stored_origin,
)

AGAIN = (
    "Store soft labels again with `monai_kd.corrections.store_soft_labels` (in a bundle that has it: the command with "
    "configs/store_soft_labels.yaml)"
)


class LoadSoftLabeld(MapTransform):
    """
    Loads the soft label that :py:func:`~monai_kd.corrections.store_soft_labels` has stored for an image, as one more
    entry of the item. It belongs behind the transforms that are the same in each epoch and before the first random one;
    from there on MONAI's spatial transforms move image, label and soft label alike, the soft label like the image
    (``keys=["image", "label", "soft_label"], mode=["bilinear", "nearest", "bilinear"]``):
    :py:class:`~monai_kd.networks.StoredSoftLabel` makes distributions of what they leave. Flips, crops and turns by 90
    degrees keep each pixel's soft label as it is. Where interpolation mixes pixels, the most probable class of a
    soft label can differ from the label at borders between classes.

    A soft label is never used for something else than it was computed for. It is found by the image and the label as
    they are preprocessed, see :py:func:`~monai_kd.transforms.soft_label_file.sample_key`. It is refused if it comes
    from other weights. Which corrections were made, and with which options, is not known here: name in ``weights_key``
    what matters of them. What is noticed is a folder that mixes two chains of corrections or two numbers of classes, as
    storing that was stopped half way leaves it.

    Args:
        keys: entries to write, ``"soft_label"``.
        folder: where they are stored.
        weights_key: what the stored ones must come from, see :py:func:`~monai_kd.corrections.weights_key`.
        image_key: entry of the image.
        label_key: entry of the label.

    Shapes: image (channels, *spatial), label (1, *spatial); probabilities (C, *spatial), float32, that sum to 1 over C,
    or of the foreground alone where the teacher has one channel, with the affine of the image.

    Raises:
        FileNotFoundError: when there is none for this image and label.
        ValueError: when it comes from other weights, or from another chain of corrections than those loaded before, or
            when its file is broken.

    Example::

        >>> transform = LoadSoftLabeld("soft_label", folder="soft_labels", weights_key="teacher 1")
        >>> transform({"image": torch.zeros(3, 8, 8), "label": torch.zeros(1, 8, 8)})
        Traceback (most recent call last):
        ...
        FileNotFoundError: `folder` must hold a soft label for this image, but got soft_labels without ...
    """

    def __init__(
        self,
        keys: KeysCollection,
        folder: PathLike,
        weights_key: str,
        image_key: str = "image",
        label_key: str = "label",
    ) -> None:
        super().__init__(keys)
        self.folder = Path(folder).expanduser()
        self.weights_key = weights_key
        self.image_key, self.label_key = image_key, label_key
        self._first: tuple[dict[str, str], Path] | None = None  # the origin of all, and where it was read

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        image = d[self.image_key]
        path = soft_label_path(self.folder, image, d[self.label_key])
        for key in self.keys:
            d[key] = self._load(path, image)
        return d

    def _load(self, path: Path, image: Any) -> torch.Tensor:
        if not path.is_file():
            raise FileNotFoundError(
                f"`folder` must hold a soft label for this image, but got {path.parent} without {path.name}. Was it "
                "never stored, or have image, label or preprocessing changed since, or is a random transform before "
                f"`LoadSoftLabeld`? {AGAIN}."
            )
        origin = stored_origin(path)
        if not origin:
            raise ValueError(
                f"`folder` must hold whole files of stored soft labels, but got {path}, which is broken or something "
                f"else. {AGAIN}, which replaces it."
            )
        if origin[WEIGHTS_KEY] != self.weights_key:
            raise ValueError(
                f"`weights_key` must be that of the stored soft labels, but got "
                f"{key_differences(origin[WEIGHTS_KEY], self.weights_key)} in {path}: teacher, assistants or "
                f"corrections have changed since, or are others. {AGAIN}; in a folder of their own, where these are to "
                "stay."
            )
        self._first = self._first or (origin, path)
        if origin != self._first[0]:
            raise ValueError(
                f"`folder` must hold soft labels of one chain of corrections and number of classes, but got "
                f"{origin} in {path} and {self._first[0]} in {self._first[1]}. {AGAIN}, to the end."
            )
        soft_label = read_soft_label(path)
        return MetaTensor(soft_label, affine=image.affine) if isinstance(image, MetaTensor) else soft_label
