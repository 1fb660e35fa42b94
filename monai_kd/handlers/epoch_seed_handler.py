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

"""Randomness that depends on the seed and the epoch alone."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from ignite.distributed import get_rank
from ignite.engine import Engine, Events
from monai.data.utils import set_rnd


class EpochSeedHandler:
    """
    Seeds Python, NumPy, torch and MONAI's random transforms as an epoch starts, from the seed, the epoch and the rank,
    and lets the epoch begin with a fresh pass over the data.

    So a run that is resumed at an epoch shuffles, augments and drops out as the uninterrupted one, and runs with and
    without distillation see the same batches. (MONAI's checkpoints hold no random state.)

    Args:
        seed: the seed of the run, >= 0.
        dataset: the training dataset, whose random transforms are seeded; with ``num_workers > 0`` the workers do it.
            Several, or loaders of them, as a list; None and words in it are skipped.

    Raises:
        ValueError: when ``seed`` is negative.

    Example::

        >>> handler = EpochSeedHandler(seed=0)
    """

    def __init__(self, seed: int = 0, dataset: Any = None) -> None:
        if seed < 0:
            raise ValueError(f"`seed` must not be negative, but got {seed}.")
        self.seed = seed
        given = dataset if isinstance(dataset, (list, tuple)) else [dataset]
        self.datasets = [
            getattr(each, "dataset", each) for each in given if each is not None and not isinstance(each, str)
        ]
        self._first = True

    def attach(self, engine: Engine) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_STARTED, self)

    def _start(self, engine: Any) -> None:
        self._first = True

    def __call__(self, engine: Any) -> None:
        seed = int(np.random.SeedSequence([self.seed, engine.state.epoch, get_rank()]).generate_state(1)[0])
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        for index, dataset in enumerate(self.datasets):
            set_rnd(dataset, seed + index)
        if not self._first:  # of a pass cut short by `epoch_length`, the next epoch would see the rest
            engine.set_data(engine.state.dataloader)
        self._first = False
