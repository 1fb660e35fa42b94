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

"""Refusing a volume whose pixels have another size than those of the training."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from monai.config import KeysCollection
from monai.transforms import MapTransform


class CheckSpacingd(MapTransform):
    """
    Refuses a volume whose spacing is far from that of the training. A network that crops or sees a fixed number of
    pixels sees another part of the body then, and organs of another size, and its mask is wrong without a warning.

    Args:
        keys: loaded volumes with their affine.
        spacing: the least and the largest spacing in mm that the training had, for each axis: ``[[0.6, 0.6, 1],
            [0.9, 0.9, 5]]``. None where it is not known: nothing is checked.
        factor: how far outside this range a spacing may be, >= 1. None: nothing is checked.
        axes: how many axes are compared. The default leaves the distance of slices out, which a network of single
            slices does not see.
        allow_missing_keys: whether a missing key is no error.

    Shapes: (C, *spatial), unchanged.

    Raises:
        ValueError: when the factor is below 1, and for such a volume.

    Example::

        >>> import torch
        >>> from monai.data import MetaTensor
        >>> ct = MetaTensor(torch.zeros(1, 8, 8, 4), affine=torch.diag(torch.tensor([1.0, 1.0, 3.0, 1.0])))
        >>> CheckSpacingd("image", [[4.0, 4.0, 2.5], [5.0, 5.0, 2.5]])({"image": ct})
        Traceback (most recent call last):
        ...
        ValueError: `image` must have pixels of 4 x 4 to 5 x 5 mm, as the weights were trained on, or within a ...
    """

    def __init__(
        self,
        keys: KeysCollection,
        spacing: Sequence[Sequence[float]] | None,
        factor: float | None = 1.5,
        axes: int = 2,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        if factor is not None and factor < 1:
            raise ValueError(f"`factor` must be >= 1 or None, but got {factor}.")
        self.spacing = spacing
        self.factor = factor
        self.axes = axes

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        d = dict(data)
        if self.spacing is None or self.factor is None:
            return d
        least, most = ([float(size) for size in end][: self.axes] for end in self.spacing)
        for key in self.key_iterator(d):
            found = d[key].pixdim.tolist()[: self.axes]
            fits = [low / self.factor <= own <= high * self.factor for low, own, high in zip(least, found, most)]
            if not all(fits):
                raise ValueError(
                    f"`{key}` must have pixels of {_mm(least)} to {_mm(most)} mm, as the weights were trained on, or "
                    f"within a factor of {self.factor:g}, but got {_mm(found)} mm; resample it (MONAI's `Spacing`), "
                    "or allow more by `spacing_factor`."
                )
        return d


def _mm(spacing: Sequence[float]) -> str:
    return " x ".join(f"{size:.3g}" for size in spacing)
