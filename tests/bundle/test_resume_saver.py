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

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine
from monai.handlers import CheckpointSaver

from monai_kd.bundle import ResumeSaver, latest_checkpoint

resume_saver = sys.modules[ResumeSaver.__module__]


class Killed(BaseException):
    """Ends a run as a signal does."""


def training(saver: CheckpointSaver, network: torch.nn.Module) -> Engine:
    """Its weight is the number of the epoch."""

    def step(engine: Engine, batch: int) -> None:
        torch.nn.init.constant_(network.weight, engine.state.epoch)

    engine = Engine(step)
    saver.attach(engine)
    return engine


def weight(path: Path) -> float:
    return torch.load(path, weights_only=True)["weight"].item()


@pytest.mark.parametrize("kind", [CheckpointSaver, ResumeSaver])
def test_files_are_those_of_monai(tmp_path, kind):
    network = torch.nn.Linear(1, 1, bias=False)
    saver = kind(
        str(tmp_path), {"model": network}, file_prefix="a", save_interval=1, n_saved=2, save_final=True,
        final_filename="last.pt",
    )  # fmt: skip
    training(saver, network).run([0], max_epochs=4)
    found = {file.name: weight(file) for file in tmp_path.iterdir()}
    assert found == {"a_model_epoch=3.pt": 3, "a_model_epoch=4.pt": 4, "last.pt": 4}


@pytest.mark.parametrize(("kind", "left"), [(CheckpointSaver, [2, 3]), (ResumeSaver, [2])])
def test_killed_while_it_writes_it_leaves_whole_files(tmp_path, monkeypatch, kind, left):
    """MONAI's leaves half a file; when that fails, our class can go."""
    network = torch.nn.Linear(1, 1, bias=False)
    state = {"model": network, "other": network}
    engine = training(kind(str(tmp_path), state, file_prefix="a", save_interval=1, n_saved=2), network)
    save = torch.save

    def cut(content, target, **options):
        save(content, target)
        if engine.state.epoch == 3:
            Path(target).write_bytes(Path(target).read_bytes()[:100])
            raise Killed

    monkeypatch.setattr(torch, "save", cut)
    monkeypatch.setattr("ignite.handlers.checkpoint.torch.save", cut)
    with pytest.raises(Killed):
        engine.run([0], max_epochs=4)
    assert sorted(file.name for file in tmp_path.iterdir()) == [f"a_checkpoint_epoch={number}.pt" for number in left]
    assert Path(latest_checkpoint(tmp_path, "a")).name == "a_checkpoint_epoch=2.pt"


def test_other_ranks_write_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(resume_saver, "get_rank", lambda: 1)
    network = torch.nn.Linear(1, 1, bias=False)
    training(ResumeSaver(str(tmp_path), {"model": network}, save_interval=1), network).run([0], max_epochs=1)
    assert list(tmp_path.iterdir()) == []
