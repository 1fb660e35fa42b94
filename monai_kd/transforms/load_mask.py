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

"""Masks drawn on photographs as 0 and 1."""

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

LOSSY = ("JPEG", "MPO", "JPEG2000", "WEBP")
TINGE, LOSSY_TINGE = 64, 110  # of 255: how far a channel may be from the colour of the mask


class LoadMask(Transform):
    """
    Reads the mask of a photograph as 0 and 1. What is a mask is decided by the file as a whole:

    - with a value above half of the range (127 of 8 bits), what is above it is 1: masks of 0 and 255, also with the
      noise of JPEG (Kvasir-SEG), and one colour, of which the brightest channel counts, while several colours are
      refused, a class each; in a format without loss, a third
      value in the middle of the range on more than 1 % of the pixels is a class of its own (REFUGE: 0, 128 and 255)
      and is refused, unlike smooth edges; so are several such values in one half of the range with a single value in
      the other, unlike noise (Pascal VOC: 0, the class 1, and 255 for what is void), and so are several values without
      one in the lower half (254 and 255);
    - with no value above 1, in a format without loss, 1 is 1: masks of 0 and 1, and empty ones;
    - anything else is refused, since no threshold is sure: 0, 1 and 2 may be three classes, and stretching the range
      would make lesions of the noise in an empty mask. So are photographs and transparent pictures.

    Height comes before width and the EXIF orientation is applied, as in :py:class:`LoadRGB`.

    Shapes: (1, H, W), float32, a MetaTensor with ``filename_or_obj`` in its meta data.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it is no picture, holds several, or is no mask of two values.
        RuntimeError: when it cannot be decoded.

    Example::

        >>> import os, tempfile
        >>> file = os.path.join(tempfile.mkdtemp(), "mask.png")
        >>> Image.fromarray(np.array([[0, 255, 0]], np.uint8)).save(file)
        >>> LoadMask()(file)
        metatensor([[[0., 1., 0.]]])
    """

    def __call__(self, filename: PathLike) -> MetaTensor:
        """
        Args:
            filename: the file.
        """
        mask = mask_pixels(open_photo(filename), str(filename))
        return MetaTensor(
            torch.from_numpy(mask.astype(np.float32))[None], meta={ImageMetaKey.FILENAME_OR_OBJ: str(filename)}
        )


class LoadMaskd(MapTransform):
    """
    Dictionary version of :py:class:`LoadMask`.

    Args:
        keys: keys of the file names.
        allow_missing_keys: whether a missing key is no error.

    Raises:
        FileNotFoundError, ValueError, RuntimeError: as :py:class:`LoadMask`.

    Example::

        >>> LoadMaskd("label")({"label": "mask.png"})
        Traceback (most recent call last):
        ...
        FileNotFoundError: `filename` must be a picture, but got mask.png, which is not there.
    """

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False) -> None:
        super().__init__(keys, allow_missing_keys)
        self.loader = LoadMask()

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        for key in self.key_iterator(d):
            d[key] = self.loader(d[key])
        return d


def mask_pixels(image: Image.Image, name: str) -> np.ndarray:
    """
    The pixels of a mask as True and False, see :py:class:`LoadMask`.

    Args:
        image: what :py:func:`monai_kd.transforms.open_photo.open_photo` gives.
        name: how an error calls it.

    Returns:
        (H, W) of bool.

    Raises:
        ValueError: when it is no mask of two values.

    Example::

        >>> mask_pixels(Image.new("L", (3, 2), 255), "mask.png").all()
        np.True_
    """
    values, colours = _values(image, name)
    low, top = int(values.min()), int(values.max())
    full = 65535 if top > 255 else 255
    lossy = image.format in LOSSY
    if top > full // 2:
        between = values[(values > 0.15 * full) & (values < 0.85 * full)]
        if between.size > 0.1 * values.size and len(np.unique(between)) > 32:  # edges in JPEG are below 0.01 of it
            raise ValueError(f"`filename` must be a mask in black and white, but got a photograph in {name}.")
        if colours is not None:
            _check_colours(colours[values > full // 2], lossy, name)
        if not lossy:
            _check_levels(values, full, name)
        return values > full // 2
    if top == 1 and not lossy:
        return values == 1
    if top == 0 or (lossy and low == top <= 16):
        return np.zeros(values.shape, bool)
    raise ValueError(
        f"`filename` must be a mask of 0 and {full}, or of 0 and 1 in a format without loss, but got values from "
        f"{low} to {top} in {name} ({image.format}); save it as PNG with 255 in the lesion."
    )


def _check_levels(values: np.ndarray, full: int, name: str) -> None:
    """Refuses three classes and more; noise of JPEG that was saved as PNG is at both ends of the range."""
    found, counts = np.unique(values, return_counts=True)
    frequent = counts > 0.01 * values.size
    levels, above = found[frequent], found > full // 2
    middle = len(levels) > 2 and bool(((levels > 0.15 * full) & (levels < 0.85 * full)).any())
    one_sided = any(side.sum() == 1 and (frequent & ~side).sum() > 1 for side in (above, ~above))
    if above.all() and len(found) > 1:
        raise ValueError(
            f"`filename` must be a mask of two values, one in the lower half of the range, but got "
            f"{', '.join(map(str, found[:5]))} in {name}; save it as PNG with 0 and 255."
        )
    if middle or one_sided:
        raise ValueError(
            f"`filename` must be a mask of two values, but got {', '.join(map(str, levels))} on more than 1 % of the "
            f"pixels each, of values up to {found[-1]}, in {name}; save one mask for each class."
        )


def _check_colours(colours: np.ndarray, lossy: bool, name: str) -> None:
    """Refuses several colours among pixels of the mask: all are one colour, darker at smooth edges."""
    found, counts = np.unique(colours, axis=0, return_counts=True)
    main = found[counts.argmax()].astype(np.float64)
    along = (found @ main) / (main @ main)
    apart = np.abs(found - along[:, None] * main).max(axis=1)
    other = apart > (LOSSY_TINGE if lossy else TINGE)
    rare = 0 if len(found) <= 16 and not lossy else 0.01 * len(colours)  # few colours: no smooth edges, no noise
    if counts[other].sum() > rare:
        second = found[other][counts[other].argmax()]
        shown = " and ".join(str(tuple(map(int, colour))) for colour in (main, second))
        raise ValueError(
            f"`filename` must be a mask of one colour on black, but got the colours {shown} in {name}; save one mask "
            "for each class."
        )


def _values(image: Image.Image, name: str) -> tuple[np.ndarray, np.ndarray | None]:
    """(H, W): the values of a grey mask, of a coloured one those of the brightest channel; (H, W, 3) where coloured."""
    check_depth(image, name)
    if image.mode.startswith("I"):
        return np.asarray(image).astype(np.int64), None
    if image.mode in ("1", "L") and "transparency" not in image.info:
        return np.asarray(image.convert("L")), None
    image = image.convert("RGBA")
    red, green, blue, alpha = (np.asarray(channel) for channel in image.split())
    if alpha.min() < 255:
        raise ValueError(f"`filename` must be a mask without transparency, but got some in {name}; save it without.")
    colours = np.stack([red, green, blue], axis=-1)
    brightest = colours.max(axis=-1)
    return brightest, None if (colours == brightest[..., None]).all() else colours
