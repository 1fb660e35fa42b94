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

"""Which checkpoint a run goes on from."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine

from monai_kd.bundle import latest_checkpoint


class Code:
    """A pickle that writes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def write(folder: Path, *names: str) -> list[Path]:
    """Checkpoints a second apart, the last one the newest."""
    for second, name in enumerate(names):
        torch.save({"epoch": torch.zeros(100)}, folder / name)
        os.utime(folder / name, (second, second))
    return [folder / name for name in names]


def test_newest_by_time_not_by_name(tmp_path):
    """A training that was started anew in the same folder has smaller epochs."""
    write(tmp_path, "model_checkpoint_epoch=10.pt", "model_checkpoint_epoch=9.pt", "model_checkpoint_epoch=2.pt")
    assert latest_checkpoint(tmp_path, "model") == f"{tmp_path}/model_checkpoint_epoch=2.pt"


def test_other_runs_in_the_folder_are_not_taken(tmp_path):
    write(
        tmp_path, "model_checkpoint_epoch=1.pt", "model_seed_1_checkpoint_epoch=4.pt", "teacher_checkpoint_epoch=9.pt"
    )
    assert latest_checkpoint(tmp_path, "model").endswith("model_checkpoint_epoch=1.pt")
    assert latest_checkpoint(str(tmp_path), "teacher").endswith("teacher_checkpoint_epoch=9.pt")
    assert latest_checkpoint(tmp_path).endswith("teacher_checkpoint_epoch=9.pt")
    write(tmp_path, "a[1]_checkpoint_epoch=3.pt")
    assert latest_checkpoint(tmp_path, "a[1]").endswith("a[1]_checkpoint_epoch=3.pt")


@pytest.mark.parametrize("size", [0, 10, 300])
def test_file_cut_off_is_passed_over(tmp_path, caplog, size):
    older, newer = write(tmp_path, "model_checkpoint_epoch=1.pt", "model_checkpoint_epoch=2.pt")
    newer.write_bytes(newer.read_bytes()[:size])
    assert latest_checkpoint(tmp_path, "model") == str(older)
    assert f"{newer} cannot be read and is passed over: " in caplog.text


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    torch.save({"x": Code(tmp_path / "ran")}, tmp_path / "model_checkpoint_epoch=1.pt")
    with pytest.raises(
        FileNotFoundError, match=r"a readable checkpoint of `model` .* with 1 unreadable; start without"
    ):
        latest_checkpoint(tmp_path, "model")
    assert not (tmp_path / "ran").exists()


def trainer_with(**settings: object) -> Engine:
    trainer = Engine(lambda engine, batch: None)
    trainer.state.settings = settings
    return trainer


def test_run_of_other_settings_is_not_gone_on_with(tmp_path):
    """All that differs is named; an older checkpoint is not taken in its place."""
    (older,) = write(tmp_path, "model_checkpoint_epoch=1.pt")
    torch.save({"trainer": {"settings": {"seed": 1, "batch size": 4, "network": "ENet"}}}, older)
    newer = tmp_path / "model_checkpoint_epoch=2.pt"
    torch.save({"trainer": {"settings": {"seed": 0, "batch size": 8, "network": "ENet"}}}, newer)
    with pytest.raises(ValueError, match=r"epoch=2.pt with seed 0 and not 1, batch size 8 and not 4; give "):
        latest_checkpoint(tmp_path, "model", trainer_with(seed=1, network="ENet", **{"batch size": 4}))
    same = trainer_with(seed=0, network="ENet", **{"batch size": 8})
    assert latest_checkpoint(tmp_path, "model", same) == str(newer)
    assert latest_checkpoint(tmp_path, "model", Engine(lambda engine, batch: None)) == str(newer)


def test_checkpoint_without_settings_is_not_gone_on_with(tmp_path):
    write(tmp_path, "model_checkpoint_epoch=1.pt")
    with pytest.raises(ValueError, match="with seed None and not 1"):
        latest_checkpoint(tmp_path, "model", trainer_with(seed=1))


def test_nothing_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"`folder` must hold a readable .*nowhere with 0 unreadable"):
        latest_checkpoint(tmp_path / "nowhere", "model")
