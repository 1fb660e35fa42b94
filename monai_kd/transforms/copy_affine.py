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

"""A label that takes the geometry of its image."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import torch
from monai.config import KeysCollection
from monai.data.meta_tensor import MetaTensor
from monai.transforms import MapTransform


class CopyAffined(MapTransform):
    """
    Gives items the affine matrix of another item, for data whose arrays correspond voxel by voxel although the
    headers do not say so.

    Published LiTS needs it: several of its segmentations carry an identity affine while the volume has a real one, so
    that reorienting each by its own header would flip the label against the image. Place it between loading and
    `Orientationd`; when the headers agree it changes nothing.

    Args:
        keys: items that receive the affine, labels usually.
        source_key: the item whose affine is right.
        allow_missing_keys: whether a missing key is no error.

    Shapes: (C, *spatial), equal spatial sizes.

    Raises:
        ValueError: when the spatial sizes differ, or an item is no MetaTensor.

    Example::

        >>> image = MetaTensor(torch.zeros(1, 2, 2, 2), affine=2 * torch.eye(4))
        >>> label = MetaTensor(torch.ones(1, 2, 2, 2))
        >>> CopyAffined("label", "image")({"image": image, "label": label})["label"].affine[0, 0].item()
        2.0
    """

    def __init__(self, keys: KeysCollection, source_key: str = "image", allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.source_key = source_key

    def __call__(self, data: Mapping[Hashable, torch.Tensor]) -> dict[Hashable, torch.Tensor]:
        d = dict(data)
        source = d[self.source_key]
        for key in self.key_iterator(d):
            item = d[key]
            if not (isinstance(item, MetaTensor) and isinstance(source, MetaTensor)):
                raise ValueError(
                    f"`{key}` and `{self.source_key}` must be MetaTensors, but got {type(item).__name__} and "
                    f"{type(source).__name__}; load both with MONAI's LoadImaged."
                )
            if item.shape[1:] != source.shape[1:]:
                raise ValueError(
                    f"`{key}` must have the spatial size of `{self.source_key}`, "
                    f"but got {tuple(item.shape[1:])} and {tuple(source.shape[1:])}."
                )
            item = item.clone()
            item.affine = source.affine.clone()
            d[key] = item
        return d
