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

"""Lesions whose boundary and interior have exchanged pixels."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.data.meta_obj import get_track_meta
from monai.data.meta_tensor import MetaTensor
from monai.transforms import MapTransform, Randomizable, RandomizableTransform
from monai.transforms.utils import distance_transform_edt
from monai.utils import TransformBackends, convert_to_numpy, convert_to_tensor


class RandBoundaryTransform(RandomizableTransform):
    """
    Exchanges random pixels of a lesion's boundary band with as many of its interior; the label stays as it is. Wang et
    al., "Progressively Correcting Soft Labels via Teacher Team for Knowledge Distillation in Medical Image
    Segmentation", MICCAI 2024, Sec. 2.3: what is hard at the boundary is easy amid the lesion, so that a network
    trained on such images learns to see boundary pixels.

    The band are the lesion's pixels within ``width`` of what is not of its class, by MONAI's Euclidean distance
    transform; the interior are the others. A swap takes all channels of a pixel. So the pixels of each class remain the
    same set, and the background remains untouched. Where the paper, which has no code, leaves it open:

    - The width and the number of pixels are in its supplement, which we do not have: ours are defaults.
    - With several classes each swaps within itself, since a pixel of another would contradict the label.
    - Lesions that are all band, thinner than twice the width, have no interior: where a class has no other, nothing is
      exchanged. The image's edge is no boundary, since the lesion may go on behind it; so a class that fills the image
      has no band.

    Args:
        width: of the band, in pixels, at least 1, where the band is the outermost layer.
        fraction: share of the smaller of band and interior that is exchanged, in (0, 1].
        prob: probability that an image is changed. The paper changes each.

    Raises:
        ValueError: when an argument is out of range, or (as it is called) the label does not fit.

    Shapes: image (channels, H, W) or (channels, D, H, W), label (1, *spatial) with class indices, 0 the background.

    Example::

        >>> import torch
        >>> image, label = torch.rand(3, 8, 8), torch.zeros(1, 8, 8)
        >>> label[:, 1:7, 1:7] = 1
        >>> changed = RandBoundaryTransform(width=1).set_random_state(0)(image, label)
        >>> [bool((changed == image)[:, part].all()) for part in (label[0] == 0, label[0] == 1)]
        [True, False]
    """

    backend = [TransformBackends.TORCH]

    def __init__(self, width: float = 5, fraction: float = 0.5, prob: float = 1.0) -> None:
        if not 1 <= width < math.inf:
            raise ValueError(f"`width` must be a finite number of pixels, at least 1, but got {width}.")
        if not 0 < fraction <= 1:
            raise ValueError(f"`fraction` must be above 0 and at most 1, but got {fraction}.")
        if not 0 <= prob <= 1:
            raise ValueError(f"`prob` must be from 0 to 1, but got {prob}.")
        RandomizableTransform.__init__(self, prob)
        self.width = width
        self.fraction = fraction
        self._swap = np.zeros((2, 0), dtype=np.int64)

    def randomize(self, data: Any) -> None:
        """Draw the pixels to exchange in an image of the label ``data``."""
        super().randomize(None)
        self._swap = np.zeros((2, 0), dtype=np.int64)  # flat indices, of the band and of the interior
        if not self._do_transform:
            return
        classes = _as_classes(data)
        swaps = [self._draw(classes == number) for number in np.unique(classes) if number > 0]
        self._swap = np.concatenate([self._swap, *swaps], axis=1)

    def _draw(self, lesion: np.ndarray) -> np.ndarray:
        if lesion.all():  # what a distance transform says of it is undefined
            return self._swap
        distance = distance_transform_edt(lesion[None])[0]
        band = np.flatnonzero(lesion & (distance <= self.width))
        interior = np.flatnonzero(distance > self.width)
        number = math.ceil(self.fraction * min(len(band), len(interior)))
        return np.stack([self.R.choice(pixels, number, replace=False) for pixels in (band, interior)])

    def __call__(
        self, img: NdarrayOrTensor, label: NdarrayOrTensor | None = None, randomize: bool = True
    ) -> torch.Tensor:
        """
        Args:
            img: (channels, *spatial).
            label: (1, *spatial), needed where ``randomize`` is True.
            randomize: whether to draw anew; False repeats the last exchange, on another image of the same label.
        """
        if label is not None and tuple(img.shape[1:]) != tuple(label.shape[1:]):
            raise ValueError(
                f"`label` must have the spatial size of `img`, but got {tuple(label.shape)} and {tuple(img.shape)}."
            )
        if randomize:
            if label is None:
                raise ValueError("`label` must be given where pixels are drawn, but got None.")
            self.randomize(label)
        image = convert_to_tensor(img, track_meta=get_track_meta())
        if self._swap.shape[1] == 0:
            return image
        image = image.clone(memory_format=torch.contiguous_format)
        pixels = (image.as_tensor() if isinstance(image, MetaTensor) else image).flatten(1)  # a view
        here, there = torch.from_numpy(self._swap).to(pixels.device)
        pixels[:, here], pixels[:, there] = pixels[:, there], pixels[:, here]
        return image


class RandBoundaryTransformd(Randomizable, MapTransform):
    """
    Dictionary version of :py:class:`RandBoundaryTransform`; all keys exchange the same pixels. It belongs behind the
    transforms that move or resize, and before those that change values at random.

    Args:
        keys: of the images.
        label_key: of the label, which is read only.
        width: see :py:class:`RandBoundaryTransform`.
        fraction: see :py:class:`RandBoundaryTransform`.
        prob: see :py:class:`RandBoundaryTransform`.
        allow_missing_keys: whether a missing image is no error.

    Example::

        >>> import torch
        >>> transform = RandBoundaryTransformd(keys=("image",), label_key="label", width=2, prob=0.5)
        >>> transform({"image": torch.rand(3, 8, 8), "label": torch.ones(1, 8, 8)})["image"].shape
        torch.Size([3, 8, 8])
    """

    backend = RandBoundaryTransform.backend

    def __init__(
        self,
        keys: KeysCollection = ("image",),
        label_key: str = "label",
        width: float = 5,
        fraction: float = 0.5,
        prob: float = 1.0,
        allow_missing_keys: bool = False,
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        self.label_key = label_key
        self.transform = RandBoundaryTransform(width, fraction, prob)

    def set_random_state(
        self, seed: int | None = None, state: np.random.RandomState | None = None
    ) -> RandBoundaryTransformd:
        super().set_random_state(seed, state)
        self.transform.set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, NdarrayOrTensor]:
        d = dict(data)
        if self.allow_missing_keys and self.label_key not in d:
            return d  # an image that nobody labelled
        drawn = False
        for key in self.key_iterator(d):
            d[key] = self.transform(d[key], d[self.label_key], randomize=not drawn)
            drawn = True
        return d


def _as_classes(label: NdarrayOrTensor) -> np.ndarray:
    if isinstance(label, torch.Tensor) and label.dtype == torch.bfloat16:  # which NumPy does not know
        label = label.float()
    classes = convert_to_numpy(label)
    if classes.ndim not in (3, 4) or classes.shape[0] != 1:
        raise ValueError(
            f"`label` must be of shape (1, H, W) or (1, D, H, W), but got {classes.shape}; a one-hot label wants "
            "MONAI's `AsDiscrete(argmax=True)`."
        )
    if classes.dtype.kind == "f" and (classes != np.rint(classes)).any():
        wrong = classes[classes != np.rint(classes)].flat[0]
        raise ValueError(f"`label` must hold whole class indices, but got {wrong:g}; resize labels with mode nearest.")
    return classes[0]
