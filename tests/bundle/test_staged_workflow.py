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

"""Which stages are finished; with real networks in tests/bundles/test_walk_team.py."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser

from monai_kd.bundle import KDWorkflow, StagedWorkflow
from monai_kd.bundle.claim_checkpoints import was_cut_off
from monai_kd.bundle.run_identity import configuration_identity
from monai_kd.bundle.staged_workflow import _check_settings, _other_settings, _state, _write_settings
from tests.bundle.test_claim_checkpoints import claimed
from tests.bundles.journey import undisturbed

STAGES = ["teacher", "assistant", "student", "exported"]


@pytest.fixture
def stage(tmp_path):
    """A stage of 3 epochs without anything on the disk."""
    (tmp_path / "resume").mkdir()
    entries = {"ckpt_name": "model", "ckpt_dir": str(tmp_path), "max_epochs": 3}
    return ConfigParser(entries | {"best_ckpt": "$@ckpt_dir + '/' + @ckpt_name + '.pt'"})


def save(folder: Path, epoch: int) -> Path:
    path = folder / "resume" / f"model_checkpoint_epoch={epoch}.pt"
    torch.save({"epoch": epoch}, path)
    return path


class TestState:
    def test_nothing_was_trained(self, stage):
        assert _state(stage) == "missing"

    def test_by_the_epoch_of_the_newest_checkpoint(self, stage, tmp_path):
        (tmp_path / "model.pt").touch()
        save(tmp_path, 2)
        assert _state(stage) == "stopped"
        save(tmp_path, 3)
        assert _state(stage) == "finished"
        (tmp_path / "model.pt").unlink()
        assert _state(stage) == "missing"

    def test_checkpoints_deleted_after_training(self, stage, tmp_path):
        trainer = claimed(tmp_path)
        trainer.add_event_handler("EPOCH_COMPLETED", lambda: (tmp_path / "model.pt").touch())
        trainer.run([0])
        assert _state(stage) == "finished"

    def test_killed_between_the_best_weights_and_the_first_checkpoint(self, stage, tmp_path):
        def kill() -> None:
            (tmp_path / "model.pt").touch()
            raise KeyboardInterrupt

        trainer = claimed(tmp_path)
        trainer.add_event_handler("EPOCH_COMPLETED", kill)
        with pytest.raises(KeyboardInterrupt):
            trainer.run([0], max_epochs=3)
        assert was_cut_off(tmp_path / "model.pt")
        assert _state(stage) == "missing"

    def test_killed_while_the_first_checkpoint_was_written(self, stage, tmp_path):
        save(tmp_path, 1).write_bytes(b"")
        assert _state(stage) == "missing"

    def test_killed_while_a_later_checkpoint_was_written(self, stage, tmp_path):
        save(tmp_path, 1)
        path = save(tmp_path, 2)
        path.write_bytes(path.read_bytes()[:99])
        assert _state(stage) == "stopped"


class TestSettings:
    FIRST = {"rate": 0.1, "loss": {"_target_": "DiceLoss", "weights": [1, 2]}, "num_workers": 2, "dataset_dir": "a"}

    def written(self, folder: Path) -> Path:
        best = folder / "model.pt"
        best.touch()
        _write_settings(best, configuration_identity(self.FIRST))
        return best

    @pytest.mark.parametrize(
        ("other", "said"),
        [
            ({}, ""),
            ({"num_workers": 0, "dataset_dir": "b"}, ""),
            ({"rate": 0.2}, "rate 0.1 and not 0.2"),
            ({"loss": {"_target_": "DiceLoss", "weights": [1, 3]}}, "loss::weights::1 2 and not 3"),
            ({"loss": {"_target_": "DiceLoss", "weights": []}}, "loss::weights::0 1 and not None, loss::weights::1 2"),
            ({"more": True}, "more None and not True"),
        ],
    )
    def test_what_differs(self, tmp_path, other, said):
        best = self.written(tmp_path)
        found = _other_settings(best, configuration_identity(self.FIRST | other))
        assert found.startswith(said)
        assert bool(found) is bool(said)

    def test_the_last_stage_is_refused(self, tmp_path):
        best = self.written(tmp_path)
        _check_settings(best, configuration_identity(self.FIRST))
        with pytest.raises(ValueError, match=r"model.pt was trained with, but got rate 0.1 and not 3; train it under"):
            _check_settings(best, configuration_identity(self.FIRST | {"rate": 3}))

    @pytest.mark.parametrize("how", ["trained again", "unreadable", "missing"])
    def test_what_is_not_known_is_not_compared(self, tmp_path, how):
        best, other = self.written(tmp_path), {"rate": 3}
        kept = tmp_path / ".model.pt.settings"
        if how == "trained again":
            kept.write_text(json.dumps(json.loads(kept.read_text()) | {"weights": 1}))
        elif how == "unreadable":
            kept.write_text(kept.read_text()[:9])
        else:
            kept.unlink()
        assert _other_settings(best, other) == ""


@pytest.fixture
def four_stages(tmp_path) -> Path:
    """A bundle whose stages train nothing: each writes a number where its weights belong."""
    configs = tmp_path / "configs"
    configs.mkdir()
    train = {
        "imports": ["$import torch"],
        "bundle_root": ".",
        "ckpt_dir": "$@bundle_root + '/models'",
        "ckpt_name": STAGES[-1],
        "best_ckpt": "$@ckpt_dir + '/' + @ckpt_name + '.pt'",
        "max_epochs": 1,
        "rate": 0.1,
        "stages": {name: [f"{name}.json"] for name in STAGES[:-1]} | {STAGES[-1]: []},
        "run": ["$torch.save(@rate, @best_ckpt)"],
    }
    (configs / "train.json").write_text(json.dumps(train))
    for name in STAGES[:-1]:
        (configs / f"{name}.json").write_text(json.dumps({"ckpt_name": name}))
    (tmp_path / "models").mkdir()
    return tmp_path


def run_stages(root: Path, **override: Any) -> list[str]:
    """The stages that wrote their weights."""
    before = {path.stem: path.stat().st_mtime_ns for path in (root / "models").glob("*.pt")}
    with undisturbed():
        workflow = StagedWorkflow(str(root / "configs" / "train.json"), logging_file=False, **override)
        workflow.initialize()
        workflow.run()
        workflow.finalize()
    after = {name: (root / "models" / f"{name}.pt").stat().st_mtime_ns for name in STAGES}
    return [name for name in STAGES if before.get(name) != after[name]]


class TestStages:
    def test_all_in_their_order_once(self, four_stages):
        assert run_stages(four_stages) == STAGES
        times = [(four_stages / "models" / f"{name}.pt").stat().st_mtime_ns for name in STAGES]
        assert times == sorted(times)
        assert run_stages(four_stages) == []

    @pytest.mark.parametrize("missing", range(len(STAGES)))
    def test_all_that_come_after_a_trained_one_are_trained_anew(self, four_stages, missing):
        run_stages(four_stages)
        (four_stages / "models" / f"{STAGES[missing]}.pt").unlink()
        assert run_stages(four_stages) == STAGES[missing:]

    def test_what_was_there_is_set_aside(self, four_stages):
        run_stages(four_stages)
        (four_stages / "models" / "teacher.pt").unlink()
        run_stages(four_stages)
        aside = sorted(path.name.split(".pt.old")[0] for path in (four_stages / "models").glob("*.pt.old*"))
        assert aside == sorted(STAGES[1:])

    def test_stopped_in_between_all_later_stages_are_still_trained_anew(self, four_stages, monkeypatch):
        """Even those that come after the one that was stopped."""
        run_stages(four_stages)
        models = four_stages / "models"
        (models / "teacher.pt").unlink()
        initialize = KDWorkflow.initialize

        def stop(workflow: KDWorkflow) -> None:
            if workflow.parser.get_parsed_content("ckpt_name") == "assistant":
                raise KeyboardInterrupt
            initialize(workflow)

        with monkeypatch.context() as patched:
            patched.setattr(KDWorkflow, "initialize", stop)
            with pytest.raises(KeyboardInterrupt):
                run_stages(four_stages)
        assert [name for name in STAGES if (models / f"{name}.pt").is_file()] == ["teacher"]
        assert run_stages(four_stages) == STAGES[1:]

    def test_settings_of_each_stage_are_kept_beside_its_weights(self, four_stages):
        run_stages(four_stages, rate=0.5)
        for name in STAGES:
            kept = json.loads((four_stages / "models" / f".{name}.pt.settings").read_text())
            assert kept["settings"]["rate"] == 0.5
            assert kept["settings"]["ckpt_name"] == name
