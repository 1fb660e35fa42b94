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

"""Training at several sizes, one for each batch."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.config import KeysCollection
from monai.utils import ensure_tuple, ensure_tuple_rep
from torch.nn import functional as F

from monai_kd._private_attributes import handlers_of

MODES = ("bilinear", "trilinear", "bicubic", "area", "nearest", "nearest-exact")


class MultiScaleHandler:
    """
    Resizes each batch of a trainer to one of several sizes, as the training of PraNet, Polyp-PVT and KDAS does with the
    scales 0.75, 1 and 1.25: 256, 352 and 448 pixels of 352. All items of a batch have one size, so that they stay one
    tensor, and each size is a multiple of what the network divides by.

    The released code of KDAS makes a step at each of the three scales with every batch; here a step draws one of them,
    so that an epoch costs a third and the step count does not depend on the scales.

    The draw depends on the seed and the number of the iteration alone: a resumed run goes on as the uninterrupted one,
    and all ranks of a distributed run have the same size. A second handler of the same seed and scales may resize other
    entries of the batch to the same size.

    Args:
        scales: factors of the size, each > 0. Where several come to one size, a warning says so.
        keys: entries of the batch that are resized, (B, C, *spatial) of one spatial size.
        modes: how, one for all or one for each key: "bilinear" ("trilinear" for volumes), "bicubic", "area", "nearest"
            or "nearest-exact". Of integers, what overshoots is clipped to the range of their type.
        divisor: what every resized side is a multiple of, at least 1; the nearest one is taken, but never 0.
        seed: seed of the draws, >= 0.

    Raises:
        ValueError: when an argument is out of range, (when attached) another handler of the trainer resizes the same
            key, or (in training) a batch has no such key.

    Example::

        >>> handler = MultiScaleHandler()
        >>> [handler.scale(iteration) for iteration in range(1, 6)]
        [1.0, 1.25, 0.75, 1.25, 0.75]
    """

    def __init__(
        self,
        scales: Sequence[float] = (0.75, 1.0, 1.25),
        keys: KeysCollection = ("image", "label"),
        modes: str | Sequence[str] = ("bilinear", "nearest-exact"),
        divisor: int = 32,
        seed: int = 0,
    ) -> None:
        if not scales or not all(0 < scale < math.inf for scale in scales):
            raise ValueError(f"`scales` must be finite and greater than 0, but got {list(scales)}.")
        if not isinstance(divisor, int):
            raise ValueError(f"`divisor` must be a whole number, but got {divisor!r}.")
        if divisor < 1 or seed < 0:
            raise ValueError(f"`divisor` must be at least 1 and `seed` not negative, but got {divisor} and {seed}.")
        unknown = [mode for mode in ensure_tuple(modes) if mode not in MODES]
        if unknown:
            raise ValueError(f"`modes` must be of {', '.join(MODES)}, but got {', '.join(map(repr, unknown))}.")
        self.scales = [float(scale) for scale in scales]
        self.keys = ensure_tuple(keys)
        self.modes = ensure_tuple_rep(modes, len(self.keys))
        self.divisor = int(divisor)
        self.seed = int(seed)
        self.compared = False  # the sizes of the scales, with the first batch

    def attach(self, engine: Engine) -> None:
        """Register with a trainer whose batches are dictionaries. Attaching twice changes nothing."""
        if engine.has_event_handler(self, Events.ITERATION_STARTED):
            return
        handlers = [handler[0] for handler in handlers_of(engine, Events.ITERATION_STARTED)]
        others = [key for handler in handlers if isinstance(handler, MultiScaleHandler) for key in handler.keys]
        twice = [key for key in self.keys if key in others]
        if twice:  # the scales would multiply: 0.75 of 0.75
            raise ValueError(
                "`keys` must be resized by one `MultiScaleHandler` of a trainer, but got "
                f"{', '.join(map(repr, twice))} of two; name all scales in one of them."
            )
        engine.add_event_handler(Events.ITERATION_STARTED, self)

    def scale(self, iteration: int) -> float:
        """The scale of an iteration, counted from 1 as ignite counts."""
        draw = np.random.SeedSequence([self.seed, iteration]).generate_state(1)[0]
        return self.scales[int(draw) % len(self.scales)]

    def __call__(self, engine: Any) -> None:
        batch, scale = engine.state.batch, self.scale(engine.state.iteration)
        lacking = [key for key in self.keys if key not in batch]
        if lacking:
            raise ValueError(f"`keys` must be entries of the batch, but got {lacking}, and it has {list(batch)}.")
        if not self.compared:
            self._compare_sizes(batch[self.keys[0]].shape[2:])
        engine.state.batch = dict(batch)
        for key, mode in zip(self.keys, self.modes):
            engine.state.batch[key] = self._resize(batch[key].to(engine.state.device), scale, mode)

    def _size(self, sides: Sequence[int], scale: float) -> list[int]:
        return [max(1, round(side * scale / self.divisor)) * self.divisor for side in sides]

    def _compare_sizes(self, sides: Sequence[int]) -> None:
        self.compared = True
        sizes = {scale: "x".join(map(str, self._size(sides, scale))) for scale in self.scales}
        if len(set(sizes.values())) < len(sizes):
            found = ", ".join(f"{size} at {scale:g}" for scale, size in sizes.items())
            warnings.warn(
                f"the `scales` of {'x'.join(map(str, sides))} must differ by more than a `divisor` of {self.divisor} "
                f"to come to sizes of their own, but got {found}; take scales further apart, a larger image or, if "
                "the network allows it, a smaller divisor.",
                stacklevel=2,
            )

    def _resize(self, values: torch.Tensor, scale: float, mode: str) -> torch.Tensor:
        size = self._size(values.shape[2:], scale)
        if list(values.shape[2:]) == size:
            return values
        smooth = mode in ("bilinear", "trilinear", "bicubic")
        resized = F.interpolate(values.float(), size, mode=mode, align_corners=False if smooth else None)
        if not values.dtype.is_floating_point and values.dtype != torch.bool:
            limits = torch.iinfo(values.dtype)
            resized = resized.round().clamp(limits.min, limits.max)
        return resized.to(values.dtype)
