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

"""Colours that turn around the colour circle."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping

import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.data.meta_obj import get_track_meta
from monai.transforms import MapTransform, RandomizableTransform
from monai.utils import TransformBackends, convert_to_tensor


class RandHued(RandomizableTransform, MapTransform):
    """
    Turns the colours of an RGB image by a random angle around the axis of the greys: greys, and the mean of the three
    channels of each pixel, remain as they are where nothing is cut off; a third of a turn makes red of green, green of
    blue and blue of red.

    XP-Net's augmentation (EndoCV 2022, 3.1.1) changes brightness, contrast and hue; MONAI has the first two
    (``RandScaleIntensityd``, ``RandScaleIntensityFixedMeand``). Values that leave [0, 1] are cut off.

    Args:
        keys: of the images, (3, *spatial), values in [0, 1].
        prob: probability that an image is changed.
        shift: the largest part of a turn, in [0, 0.5].
        allow_missing_keys: whether a missing image is no error.

    Raises:
        ValueError: when an argument is out of range, or (as it is called) an image has other than three channels or
            values that are no floating-point numbers in [0, 1].

    Example::

        >>> red = torch.tensor([1.0, 0.0, 0.0]).reshape(3, 1, 1)
        >>> transform = RandHued("image", prob=1.0, shift=0.05).set_random_state(0)
        >>> transform({"image": red})["image"].flatten().tolist()
        [0.99..., 0.08..., 0.0]
    """

    backend = [TransformBackends.TORCH]

    def __init__(
        self, keys: KeysCollection, prob: float = 0.1, shift: float = 0.05, allow_missing_keys: bool = False
    ) -> None:
        if not 0 <= shift <= 0.5:
            raise ValueError(f"`shift` must be in [0, 0.5], but got {shift}.")
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        self.shift = shift
        self._turn = 0.0

    def randomize(self, data: None = None) -> None:
        """Draw whether and how far to turn."""
        super().randomize(None)
        if self._do_transform:
            self._turn = float(self.R.uniform(-self.shift, self.shift))

    def __call__(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, NdarrayOrTensor]:
        d = dict(data)
        self.randomize()
        for key in self.key_iterator(d):
            d[key] = convert_to_tensor(d[key], track_meta=get_track_meta())
            if self._do_transform:
                d[key] = self._turned(d[key])
        return d

    def _turned(self, image: torch.Tensor) -> torch.Tensor:
        if image.shape[0] != 3:
            raise ValueError(f"`keys` must name images of three channels, but got {tuple(image.shape)}.")
        low, high = image.aminmax()
        if not image.is_floating_point() or not (low >= -0.01 and high <= 1.01):  # what interpolation may add
            raise ValueError(
                f"`keys` must name images of floating-point values in [0, 1], but got {image.dtype} from {low:g} to "
                f"{high:g}; scale them first (`ScaleIntensityRanged`), and normalise afterwards."
            )
        angle = 2 * math.pi * self._turn
        along = (1 - math.cos(angle)) / 3
        across = math.sin(angle) / math.sqrt(3)
        own, after, before = math.cos(angle) + along, along + across, along - across
        rotation = image.new_tensor([[own, before, after], [after, own, before], [before, after, own]])
        return torch.einsum("ij,j...->i...", rotation, image).clamp(0, 1)
