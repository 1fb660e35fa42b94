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

"""The checkpoints of a run are kept apart from those of others."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ignite.engine import Engine

from monai_kd.bundle import claim_checkpoints as module
from monai_kd.bundle.claim_checkpoints import claim_checkpoints, was_cut_off
from monai_kd.data import write_aside

HOLD = """
import sys
from filelock import FileLock
lock = FileLock(sys.argv[1])
lock.acquire()
open(sys.argv[2], "w").write("process 7 on elsewhere")
print("held", flush=True)
sys.stdin.read()
"""


def claimed(folder: Path, start: int = 0, **settings: object) -> Engine:
    """A trainer of four steps an epoch that goes on after `start` epochs."""
    trainer = Engine(lambda engine, batch: None)
    if start:
        trainer.load_state_dict({"epoch": start, "max_epochs": 4, "epoch_length": 4})
    claim_checkpoints(trainer, folder / "model.pt", settings)
    return trainer


@pytest.fixture
def held(tmp_path):
    """Another process trains to the file."""
    words = [sys.executable, "-c", HOLD, str(tmp_path / ".model.pt.lock"), str(tmp_path / ".model.pt.training")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_checkpoint_carries_the_settings(tmp_path):
    trainer = claimed(tmp_path, seed=3)
    trainer.run([0], max_epochs=1)
    assert trainer.state_dict()["settings"] == {"seed": 3}


def test_two_processes_cannot_train_at_once(tmp_path, held):
    with pytest.raises(ValueError, match=r"model.pt must be trained by one .* but got process 7 on elsewhere at it"):
        claimed(tmp_path).run([0])
    (tmp_path / "other").mkdir()
    claimed(tmp_path / "other").run([0])
    held.kill()  # however it ends
    held.wait()
    claimed(tmp_path).run([0])


def test_other_ranks_need_no_lock(tmp_path, held, monkeypatch):
    monkeypatch.setattr(module, "get_rank", lambda: 1)
    trainer = claimed(tmp_path, seed=0)
    trainer.run([0])
    assert trainer.state.settings == {"seed": 0}


def test_process_may_train_again_after_a_training_that_ended_or_failed(tmp_path):
    def fail(engine: Engine) -> None:
        raise RuntimeError("stopped")

    first, second = claimed(tmp_path), claimed(tmp_path)
    second.add_event_handler("EPOCH_COMPLETED", fail)
    first.run([0])
    with pytest.raises(RuntimeError, match="stopped"):
        second.run([0])
    first.run([0])
    claimed(tmp_path).run([0])


@pytest.mark.parametrize("error", [OSError(95, "Operation not supported"), NotImplementedError("no flock")])
def test_file_system_without_locks_refuses_nobody(tmp_path, monkeypatch, error):
    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(module.FileLock, "acquire", refuse)
    claimed(tmp_path).run([0])
    assert not (tmp_path / ".model.pt.training").exists()


def test_lock_that_is_anothers_file_is_an_error(tmp_path, monkeypatch):
    """In a shared folder: the training would not be kept from others."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", ".model.pt.lock")

    monkeypatch.setattr(module.FileLock, "acquire", refuse)
    with pytest.raises(PermissionError, match=".model.pt.lock"):
        claimed(tmp_path).run([0])


def test_what_a_killed_process_left_is_removed(tmp_path):
    """Half a file, and the mark of a training that was cut off; what is written by another process stays."""
    for name in (".partial-dead", ".partial-new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.pt").write_text("half")
    os.utime(tmp_path / ".partial-dead", (0, 0))
    (tmp_path / ".model.pt.training").write_text("process 7 on elsewhere")
    assert was_cut_off(tmp_path / "model.pt")
    with write_aside(tmp_path / "other.pt") as aside:
        os.utime(aside.parent, (0, 0))
        claimed(tmp_path).run([0])
        aside.write_text("whole")
    assert not was_cut_off(tmp_path / "model.pt")
    names = {path.name for path in tmp_path.iterdir()} - {".model.pt.lock"}  # which goes on Windows
    assert names == {".partial-new", "other.pt"}


def test_new_run_sets_aside_what_an_earlier_one_left(tmp_path, caplog):
    caplog.set_level(logging.INFO)
    resume = tmp_path / "resume"
    resume.mkdir()
    names = ["model_checkpoint_epoch=59.pt", "model_checkpoint_epoch=60.pt"]
    others = [
        "model_seed_1_checkpoint_epoch=3.pt",
        "model_checkpoint_checkpoint_epoch=2.pt",
        "teacher_checkpoint_epoch=9.pt",
    ]
    for name in [*names, *others]:
        (resume / name).write_text(name)
    (tmp_path / "model.pt").write_text("best")
    trainer = claimed(tmp_path)
    assert all((resume / name).is_file() for name in names)  # nothing before it runs
    trainer.run([0])
    assert (tmp_path / "model.pt.old").read_text() == "best"
    assert not (tmp_path / "model.pt").exists()
    assert {path.name for path in resume.iterdir()} == {*(f"{name}.old" for name in names), *others}
    told = f"model.pt, {names[0]}, {names[1]} of an earlier run in {tmp_path} are now called .old"
    assert told in caplog.text


def test_what_was_set_aside_is_not_overwritten(tmp_path):
    for number in (1, 2, 3):
        (tmp_path / "model.pt").write_text(str(number))
        claimed(tmp_path).run([0])
    found = {path.name: path.read_text() for path in tmp_path.glob("model*")}
    assert found == {"model.pt.old": "1", "model.pt.old2": "2", "model.pt.old3": "3"}


def test_resumed_run_leaves_what_it_goes_on_from(tmp_path):
    (tmp_path / "resume").mkdir()
    (tmp_path / "resume" / "model_checkpoint_epoch=2.pt").write_text("")
    claimed(tmp_path, start=2).run([0] * 4, max_epochs=4)
    assert [path.name for path in (tmp_path / "resume").iterdir()] == ["model_checkpoint_epoch=2.pt"]
