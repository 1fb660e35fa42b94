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

"""Refusing a mask of another size than its image."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from monai.config import KeysCollection
from monai.transforms import MapTransform
from monai.utils import ImageMetaKey


class SameSized(MapTransform):
    """
    Refuses an item whose label has another size than its image, before both are resized to one. MONAI's ``LoadImaged``
    gives (C, W, H) of a picture, :py:class:`LoadRGBd` and :py:class:`LoadMaskd` (C, H, W): a label of the one beside an
    image of the other is transposed, and a training does not notice. Square pictures show nothing of it.

    Args:
        keys: loaded items, the image first.
        allow_missing_keys: whether a missing key is no error.

    Shapes: (C, *spatial), unchanged.

    Raises:
        ValueError: when the sizes differ, with the names of the files.

    Example::

        >>> import numpy as np
        >>> SameSized(["image", "label"])({"image": np.zeros((3, 4, 6)), "label": np.zeros((1, 6, 4))})
        Traceback (most recent call last):
        ...
        ValueError: `label` must have the size of `image`, but got (6, 4) and (4, 6), transposed (label, image); ...
    """

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        image, *labels = self.key_iterator(d)
        size = tuple(d[image].shape[1:])
        for label in labels:
            own = tuple(d[label].shape[1:])
            if own == size:
                continue
            turned = own == size[::-1]
            remedy = "load it by `LoadMaskd`, or put `Transposed` behind `LoadImaged`" if turned else "repair the pair"
            raise ValueError(
                f"`{label}` must have the size of `{image}`, but got {own} and {size}"
                f"{', transposed' if turned else ''} ({_name(d, label)}, {_name(d, image)}); {remedy}."
            )
        return d


def _name(data: Mapping[Hashable, Any], key: Hashable) -> str:
    return str(getattr(data[key], "meta", {}).get(ImageMetaKey.FILENAME_OR_OBJ, key))
