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

"""Each epoch's randomness follows from the seed and the epoch."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import CacheDataset, DataLoader
from monai.transforms import Compose, EnsureTyped, RandGaussianNoised

from monai_kd.handlers import EpochSeedHandler

ITEMS = [{"image": torch.full((1, 2, 2), float(number))} for number in range(10)]


def dataset() -> CacheDataset:
    """Ten items that a random transform changes."""
    noise = RandGaussianNoised("image", prob=0.5, std=0.1)
    return CacheDataset(ITEMS, Compose([EnsureTyped("image", track_meta=False), noise]), progress=False)


def run(
    epochs: int, resume_from: int = 0, seed: int = 0, workers: int = 0, epoch_length: int | None = None, draws: int = 0
) -> list[torch.Tensor]:
    """The batches of each epoch, [(iterations, items, ...)], with `draws` random numbers taken on the way."""
    data = dataset()
    loader = DataLoader(data, batch_size=3, shuffle=True, num_workers=workers)
    seen: dict[int, list[torch.Tensor]] = {}

    def step(engine: Engine, batch: Any) -> None:
        seen.setdefault(engine.state.epoch, []).append(
            torch.cat([batch["image"].as_tensor().mean((1, 2, 3)), torch.rand(1)])
        )
        for _ in range(draws):
            torch.rand(1), np.random.rand(), random.random()

    engine = Engine(step)
    EpochSeedHandler(seed, data).attach(engine)
    length = epoch_length or len(loader)
    if resume_from:
        engine.load_state_dict({"epoch_length": length, "max_epochs": epochs, "iteration": resume_from * length})
        engine.state.max_epochs = epochs
    engine.run(loader, max_epochs=epochs, epoch_length=length)
    return [torch.cat(seen[epoch]) for epoch in sorted(seen)]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("epoch_length", [None, 3], ids=["whole", "short"])
def test_resumed_epochs_see_the_same_batches(workers, epoch_length):
    """Also where an epoch ends in the middle of a pass over the data."""
    straight = run(4, workers=workers, epoch_length=epoch_length)
    resumed = run(4, resume_from=2, workers=workers, epoch_length=epoch_length)
    assert len(straight) == 4
    assert len(resumed) == 2
    for one, other in zip(straight[2:], resumed):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_short_epochs_are_drawn_from_all_items():
    """Each starts a pass of its own, instead of going through what the one before has left."""
    epochs = [
        {round(value) for value in epoch.reshape(2, 4)[:, :3].flatten().tolist()} for epoch in run(6, epoch_length=2)
    ]
    # 6 of 10 items and what is left of them share 2 at most
    assert any(len(one & other) > 2 for one, other in pairwise(epochs))
    assert len(set(map(frozenset, epochs))) > 1


def test_what_a_step_draws_does_not_reach_the_next_epoch():
    """Dropout in a teacher's or student's step, or none: the following batches are the same."""
    quiet, busy = run(2), run(2, draws=3)
    torch.testing.assert_close(quiet[1][:4], busy[1][:4], rtol=0, atol=0)


def test_epochs_and_seeds_differ():
    one, other = run(2), run(2, seed=1)
    assert not torch.equal(one[0], one[1])
    assert not torch.equal(one[0], other[0])
    torch.testing.assert_close(run(2)[1], one[1], rtol=0, atol=0)


def seeded(rank: int, epoch: int, monkeypatch: Any) -> tuple[float, float, float]:
    monkeypatch.setattr("monai_kd.handlers.epoch_seed_handler.get_rank", lambda: rank)
    engine = Engine(lambda engine, batch: None)
    engine.state.epoch = epoch
    EpochSeedHandler(seed=3)(engine)
    return random.random(), float(np.random.rand()), float(torch.rand(1))


def test_ranks_differ_in_all_sources(monkeypatch):
    draws = [seeded(rank, epoch, monkeypatch) for rank in (0, 1) for epoch in (1, 2)]
    for source in zip(*draws):
        assert len(set(source)) == 4
    assert seeded(1, 2, monkeypatch) == draws[3]


def test_negative_seed_is_refused():
    with pytest.raises(ValueError, match="`seed` must not be negative, but got -1"):
        EpochSeedHandler(-1)
