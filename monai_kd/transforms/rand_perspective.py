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

"""A plane that the camera sees aslant."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import torch
from monai.config import KeysCollection, NdarrayOrTensor
from monai.data.meta_obj import get_track_meta
from monai.transforms import MapTransform, RandomizableTransform, Resample
from monai.transforms.utils import create_grid
from monai.utils import convert_to_tensor, ensure_tuple_rep


class RandPerspectived(RandomizableTransform, MapTransform):
    """
    Shows an image as if its plane were tilted away from the camera, by the homography that leaves its centre where it
    is: what stands at y, x, from -1 to 1 over the image, comes from

    .. math:: (y, x) / (1 + a y + b x), \\qquad a, b \\sim U(-distortion, distortion).

    All keys are tilted alike. Straight lines remain straight, parallel ones meet. XP-Net's augmentation (EndoCV 2022,
    3.1.1) names a perspective transform without numbers, and MONAI has none.

    Args:
        keys: of the images, (channels, H, W) of one spatial size.
        prob: probability that an image is changed.
        distortion: the largest tilt along each axis, in [0, 0.5): at 0.3 an edge may be seen 1.3 times as far away as
            the centre, and the opposite one 0.7 times.
        mode: of interpolation, one for all or one for each key: "bilinear", "nearest" or "bicubic".
        padding_mode: what stands where the image does not reach: "zeros", "border" or "reflection".
        allow_missing_keys: whether a missing image is no error.

    Raises:
        ValueError: when an argument is out of range, or (as it is called) an image has another shape.

    Example::

        >>> transform = RandPerspectived(["image", "label"], prob=1.0, mode=["bilinear", "nearest"])
        >>> transform({"image": torch.rand(3, 8, 8), "label": torch.ones(1, 8, 8)})["image"].shape
        torch.Size([3, 8, 8])
    """

    backend = Resample.backend

    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 0.1,
        distortion: float = 0.3,
        mode: str | Sequence[str] = "bilinear",
        padding_mode: str = "zeros",
        allow_missing_keys: bool = False,
    ) -> None:
        if not 0 <= distortion < 0.5:
            raise ValueError(f"`distortion` must be in [0, 0.5), but got {distortion}.")
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, prob)
        self.distortion = distortion
        self.modes = ensure_tuple_rep(mode, len(self.keys))
        self.resample = Resample(padding_mode=padding_mode)
        self._tilt = np.zeros(2)

    def randomize(self, data: None = None) -> None:
        """Draw whether and how to tilt."""
        super().randomize(None)
        if self._do_transform:
            self._tilt = self.R.uniform(-self.distortion, self.distortion, 2)

    def __call__(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, NdarrayOrTensor]:
        d = dict(data)
        self.randomize()
        for key, mode in self.key_iterator(d, self.modes):
            d[key] = convert_to_tensor(d[key], track_meta=get_track_meta())
            if self._do_transform:
                d[key] = self._tilted(d[key], mode)
        return d

    def _tilted(self, image: torch.Tensor, mode: str) -> torch.Tensor:
        if image.ndim != 3:
            raise ValueError(f"`keys` must name images of shape (channels, H, W), but got {tuple(image.shape)}.")
        size = tuple(image.shape[1:])
        grid = torch.as_tensor(create_grid(size, dtype=np.float64))  # (3, H, W): y and x from the centre, and 1
        a, b = 2 * self._tilt / size
        grid[:2] /= 1 + a * grid[0] + b * grid[1]
        return self.resample(image, grid=grid, mode=mode)
