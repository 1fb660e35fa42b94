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

"""The best weights are in their file, whatever happens while it is written."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from monai.handlers import CheckpointSaver

from monai_kd.bundle import BestCheckpointSaver
from monai_kd.networks.weights_facts import read_facts


class Killed(BaseException):
    """Ends a run as a signal does."""


def validation(saver: CheckpointSaver, network: torch.nn.Module) -> Engine:
    """An evaluator whose metric, and the network's weight, are what it is given; the weight is 9 where that is NaN."""

    def step(engine: Engine, score: float) -> None:
        torch.nn.init.constant_(network.weight, 9.0 if math.isnan(score) else score)
        engine.state.metrics["dice"] = score

    engine = Engine(step)
    engine.state.key_metric_name = "dice"
    saver.attach(engine)
    return engine


def validate(engine: Engine, *scores: float) -> None:
    for score in scores:
        engine.run([score])


def weight(path: Path) -> float:
    return torch.load(path, weights_only=True)["weight"].item()


@pytest.fixture
def network() -> torch.nn.Module:
    return torch.nn.Linear(1, 1, bias=False)


@pytest.fixture
def half_written(monkeypatch):
    """The next file is cut off."""
    save = torch.save

    def cut(content, target):
        save(content, target)
        Path(target).write_bytes(Path(target).read_bytes()[:100])
        raise Killed

    return lambda: monkeypatch.setattr(torch, "save", cut)


def test_file_holds_the_best_epoch(tmp_path, network):
    path = tmp_path / "models" / "model.pt"
    engine = validation(BestCheckpointSaver(path, {"model": network}), network)
    for scores, best in (((0.5,), 0.5), ((0.25,), 0.5), ((0.75, 0.5), 0.75)):
        validate(engine, *scores)
        assert weight(path) == best
    assert [file.name for file in path.parent.iterdir()] == ["model.pt"]


def test_best_score_survives_a_resume(tmp_path, network):
    first = BestCheckpointSaver(tmp_path / "model.pt", {"model": network})
    validate(validation(first, network), 0.75)
    second = BestCheckpointSaver(tmp_path / "model.pt", {"model": network})
    second.load_state_dict(first.state_dict())
    engine = validation(second, network)
    validate(engine, 0.5)
    assert weight(tmp_path / "model.pt") == 0.75
    validate(engine, 0.875)
    assert weight(tmp_path / "model.pt") == 0.875


def test_killed_while_it_writes_it_leaves_the_best_until_then(tmp_path, network, half_written):
    engine = validation(BestCheckpointSaver(tmp_path / "model.pt", {"model": network}), network)
    validate(engine, 0.5)
    half_written()
    with pytest.raises(Killed):
        validate(engine, 0.75)
    assert weight(tmp_path / "model.pt") == 0.5
    assert [file.name for file in tmp_path.iterdir()] == ["model.pt"]


def test_monais_saver_leaves_half_a_file(tmp_path, network, half_written):
    """What the class is for; when this fails, it can go."""
    saver = CheckpointSaver(str(tmp_path), {"model": network}, save_key_metric=True, key_metric_filename="model.pt")
    engine = validation(saver, network)
    validate(engine, 0.5)
    half_written()
    with pytest.raises(Killed):
        validate(engine, 0.75)
    with pytest.raises(RuntimeError):
        weight(tmp_path / "model.pt")


def test_other_ranks_write_nothing(tmp_path, network, monkeypatch):
    monkeypatch.setattr(sys.modules["monai_kd.bundle.best_checkpoint_saver"], "get_rank", lambda: 1)
    validate(validation(BestCheckpointSaver(tmp_path / "model.pt", {"model": network}), network), 0.5)
    assert list(tmp_path.iterdir()) == []


def test_an_undefined_score_gives_way(tmp_path, network):
    engine = validation(BestCheckpointSaver(tmp_path / "model.pt", {"model": network}), network)
    validate(engine, float("nan"), 0.5, float("nan"), 0.4)
    assert weight(tmp_path / "model.pt") == 0.5


def test_last_epoch_where_the_score_does_not_count(tmp_path, network):
    saver = BestCheckpointSaver(tmp_path / "model.pt", {"model": network}, last=True)
    engine = validation(saver, network)
    for score in (0.5, 0.7, float("nan"), 0.2):
        validate(engine, score)
        assert weight(tmp_path / "model.pt") == pytest.approx(9.0 if math.isnan(score) else score)
    resumed = BestCheckpointSaver(tmp_path / "model.pt", {"model": network}, last=True)
    resumed.load_state_dict(saver.state_dict())
    validate(validation(resumed, network), 0.1)
    assert weight(tmp_path / "model.pt") == pytest.approx(0.1)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_weights_that_are_not_finite_are_never_saved(tmp_path, network, last, value):
    engine = validation(BestCheckpointSaver(tmp_path / "model.pt", {"model": network}, last=last), network)
    validate(engine, 0.5)
    ruin = Engine(lambda engine, batch: torch.nn.init.constant_(network.weight, value))
    ruin.state.key_metric_name = "dice"
    ruin.state.metrics["dice"] = 0.9
    BestCheckpointSaver(tmp_path / "model.pt", {"model": network}, last=last).attach(ruin)
    with pytest.raises(ValueError, match=f"weights of `model` must be finite, but got {value} in `weight`; they are"):
        ruin.run([0])
    assert weight(tmp_path / "model.pt") == 0.5


def test_file_says_what_it_holds(tmp_path, network):
    facts = {"image_size": [96, 96]}
    saver = BestCheckpointSaver(tmp_path / "model.pt", {"model": network}, facts=facts, image_key="image")
    spacings = iter([[4.0, 4.5, 3.0], [5.0, 4.25, 3.0]])

    def step(engine: Engine, score: float) -> None:
        affine = torch.diag(torch.tensor([*next(spacings), 1.0]))
        engine.state.batch = [{"image": MetaTensor(torch.zeros(1, 2, 2, 2), affine=affine)}]
        engine.state.metrics["dice"] = score

    engine = Engine(step)
    engine.state.key_metric_name = "dice"
    saver.attach(engine)
    engine.run([0.5, 0.5])
    kept = read_facts(tmp_path / "model.pt")
    assert kept["spacing"] == [[4.0, 4.25, 3.0], [5.0, 4.5, 3.0]]
    assert kept["image_size"] == [96, 96]
