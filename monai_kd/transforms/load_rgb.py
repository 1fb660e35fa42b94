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

"""Photographs as RGB in [0, 1]."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection, PathLike
from monai.data.meta_tensor import MetaTensor
from monai.transforms import MapTransform, Transform
from monai.utils import ImageMetaKey
from PIL import Image

from monai_kd.transforms.open_photo import check_depth, open_photo


class LoadRGB(Transform):
    """
    Reads a photograph, an endoscopy frame for example, as three channels in [0, 1], whatever the file holds: grey is
    repeated, a palette looked up, an alpha channel dropped, 16-bit grey scaled by 65535, and the EXIF orientation
    applied. (MONAI's ``PILReader`` leaves all of this to its user.)

    Height comes before width, as in torchvision and the networks that were trained there. MONAI's own readers give
    (C, W, H), and its writer expects that: to save what was computed from this image with ``SaveImaged``, put
    ``Transposed(keys, indices=[0, 2, 1])`` before it.

    Shapes: (3, H, W), float32, a MetaTensor with ``filename_or_obj`` in its meta data.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it is no picture, holds several, or has pixels whose range is unknown (float, 32-bit).
        RuntimeError: when it cannot be decoded.

    Example::

        >>> frame = np.full((4, 6), 255, np.uint8)
        >>> LoadRGB()(frame).shape
        torch.Size([3, 4, 6])
    """

    def __call__(self, image: PathLike | np.ndarray | torch.Tensor) -> MetaTensor:
        """
        Args:
            image: file name, or pixels (H, W) or (H, W, C) of a video's frame, uint8.
        """
        if isinstance(image, (np.ndarray, torch.Tensor)):
            meta = dict(getattr(image, "meta", {}))
            pixels = rgb_pixels(_picture(image), "the array")
        else:
            meta = {ImageMetaKey.FILENAME_OR_OBJ: str(image)}
            pixels = rgb_pixels(open_photo(image), str(image))
        return MetaTensor(torch.from_numpy(pixels).permute(2, 0, 1).contiguous(), meta=meta)


class LoadRGBd(MapTransform):
    """
    Dictionary version of :py:class:`LoadRGB`. The name of the item, its entry ``case``, goes along in the meta data of
    the image, for the names of what is saved.

    Args:
        keys: keys of the file names or frames.
        allow_missing_keys: whether a missing key is no error.

    Raises:
        FileNotFoundError, ValueError, RuntimeError: as :py:class:`LoadRGB`.

    Example::

        >>> item = {"image": np.zeros((4, 6, 3), np.uint8), "case": "video_000017"}
        >>> LoadRGBd("image")(item)["image"].meta["case"]
        'video_000017'
    """

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.loader = LoadRGB()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.loader(d[key])
            if "case" in d:
                d[key].meta["case"] = d["case"]
        return d


def _picture(pixels: Any) -> Image.Image:
    array = np.asarray(pixels)
    if array.dtype != np.uint8 or not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise ValueError(
            f"`image` must be uint8 (H, W), (H, W, 3) or (H, W, 4), but got {array.dtype} of shape {array.shape}."
        )
    return Image.fromarray(array)


def rgb_pixels(image: Image.Image, name: str) -> np.ndarray:
    """
    The pixels of a picture as RGB, see :py:class:`LoadRGB`.

    Args:
        image: what :py:func:`monai_kd.transforms.open_photo.open_photo` gives.
        name: how an error calls it.

    Returns:
        (H, W, 3) in [0, 1], float32.

    Raises:
        ValueError: when its pixels have no known range.

    Example::

        >>> rgb_pixels(Image.new("L", (3, 2), 255), "frame.png").shape
        (2, 3, 3)
    """
    check_depth(image, name)
    if image.mode.startswith("I"):
        grey = np.asarray(image).astype(np.float32) / 65535
        return np.repeat(grey[..., None], 3, axis=2)
    if "transparency" in image.info or image.mode == "PA":
        image = image.convert("RGBA")
    return np.asarray(image.convert("RGB")).astype(np.float32) / 255
