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

"""Randomness of an epoch from the seed and the epoch alone."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.data import Dataset
from monai.transforms import Compose, RandGaussianNoised, RandScaleIntensityd
from torch.utils.data import DataLoader

from monai_kd.handlers import DistillationHandler, DistillationTerm, EpochSeedHandler
from monai_kd.networks import Teacher
from tests.handlers.engine_case import Net, On, make_data, make_trainer, seeded, soften, teacher_net

pytestmark = pytest.mark.filterwarnings("ignore:.*drowns the supervised loss:UserWarning")


def run(
    handler: EpochSeedHandler, epochs: int = 3, start: int = 0, others: Any = (), **kwargs: Any
) -> list[torch.Tensor]:
    """The images of each iteration, of a process whose random state is another each time."""
    seen: list[torch.Tensor] = []
    note = On(
        Events.ITERATION_COMPLETED, lambda engine: seen.append(torch.stack([b["image"] for b in engine.state.batch]))
    )
    trainer = make_trainer(seeded(lambda: Net(dropout=0.5)), [handler, *others, note], epochs=epochs, **kwargs)
    dataset = Dataset(
        make_data(), Compose([RandGaussianNoised("image", prob=1.0), RandScaleIntensityd("image", 0.5, 0.5)])
    )
    handler.dataset = dataset
    trainer.data_loader = DataLoader(dataset, batch_size=2, shuffle=True)
    trainer.state.epoch, trainer.state.iteration = start, start * trainer.state.epoch_length
    random.seed()
    np.random.seed(None)
    torch.seed()
    trainer.run()
    return seen


def equal(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other))


def test_run_is_repeated_by_its_seed_alone():
    first = run(EpochSeedHandler(4))
    assert equal(first, run(EpochSeedHandler(4)))
    assert not equal(first, run(EpochSeedHandler(5)))
    assert not equal(first[:4], first[4:8])


@pytest.mark.parametrize("length", [None, 3, 6])
def test_resumed_run_goes_on_as_the_whole_one(length):
    """Also of epochs that end within a pass over the data, or after it."""
    whole, options = run(EpochSeedHandler(4), epoch_length=length), {"epoch_length": length}
    assert equal(run(EpochSeedHandler(4), start=2, **options), whole[2 * (length or 4) :])


def test_second_run_of_a_trainer_is_the_first():
    handler, seen = EpochSeedHandler(1), []
    trainer = make_trainer(seeded(Net), [handler, On(Events.EPOCH_STARTED, lambda engine: seen.append(torch.rand(1)))])
    trainer.run()
    trainer.run()
    assert seen[:2] == seen[2:]


def test_distillation_sees_the_same_batches():
    teacher = DistillationHandler(Teacher(teacher_net()), [DistillationTerm(soften)])
    assert equal(run(EpochSeedHandler(2)), run(EpochSeedHandler(2), others=[teacher]))


def test_all_sources_of_randomness():
    handler, draws = EpochSeedHandler(3), []
    draw = lambda engine: draws.append((random.random(), np.random.rand(), torch.rand(1).item()))  # noqa: E731
    for _ in range(2):
        random.seed()
        np.random.seed(None)
        torch.seed()
        make_trainer(seeded(Net), [handler, On(Events.EPOCH_STARTED, draw)]).run()
    assert draws[:2] == draws[2:]
    assert len({value for row in draws[:2] for value in row}) == 6


def test_ranks_differ(monkeypatch):
    draws = []
    for rank in (0, 1, 0):
        monkeypatch.setattr("monai_kd.handlers.epoch_seed_handler.get_rank", lambda rank=rank: rank)
        draw = On(Events.EPOCH_STARTED, lambda engine: draws.append(torch.rand(1).item()))
        make_trainer(seeded(Net), [EpochSeedHandler(3), draw], epochs=1).run()
    assert draws[0] == draws[2] != draws[1]


def test_seed():
    with pytest.raises(ValueError, match="`seed` must not be negative, but got -1"):
        EpochSeedHandler(-1)
