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

"""What makes a run another one: entries of its configuration, cases, and the weights of teachers."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigWorkflow
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedTrainer

from monai_kd.bundle import run_identity as module
from monai_kd.bundle.run_identity import (
    comparable,
    configuration_identity,
    is_of_earlier_release,
    run_identity,
)
from monai_kd.corrections import AssistantCorrection, CorrectedTeacher, SimilarityCorrection
from monai_kd.data.differences import differences
from monai_kd.handlers import (
    AdversarialDistillationHandler,
    DistillationHandler,
    DistillationTerm,
    FalsePixelHandler,
    SoftLabelCorrectionHandler,
)
from monai_kd.losses import KDLoss
from monai_kd.networks import Teacher, TeacherTeam

SLICES = [{"case": case, "slice": number} for case in ("a", "b") for number in range(3)]
CONFIG = {
    "imports": ["$import torch"],
    "dataset_dir": "/data/a",
    "ckpt_dir": "$@bundle_root + '/models'",
    "max_epochs": 60,
    "num_workers": 4,
    "learning_rate": 0.1,
    "share": "1/4",
    "teacher_ckpt": "models/teacher.pt",
    "loss": "$lambda logits, label: @dice(logits, label) + 0.5 * @focal(logits, label)",
    "focal": {"_target_": "FocalLoss", "gamma": 2.0},
    "train": {"dataloader": {"_target_": "DataLoader", "num_workers": 2, "batch_size": 2}},
    "initialize": ["$print(1)"],
}


def make_trainer(items: Any = SLICES, **options: Any) -> SupervisedTrainer:
    network = torch.nn.Conv2d(1, 2, 1)
    loader = DataLoader(Dataset(items), batch_size=options.pop("batch", 2))
    optimizer = torch.optim.SGD(network.parameters(), options.pop("rate", 0.1))
    return SupervisedTrainer(torch.device("cpu"), 2, loader, network, optimizer, torch.nn.MSELoss(), **options)


def teacher_net(kernel: int = 1, seed: int = 0) -> torch.nn.Conv2d:
    torch.manual_seed(seed)
    return torch.nn.Conv2d(1, 2, kernel)


def distilling(teacher: Any, weight: float = 0.1, **options: Any) -> DistillationHandler:
    return DistillationHandler(teacher, [DistillationTerm(KDLoss(), weight)], **options)


def changed(**other: Any) -> dict[str, Any]:
    config = copy.deepcopy(CONFIG)
    for key, value in other.items():
        *path, last = key.split("__")
        entry: Any = config
        for part in path:
            entry = entry[part]
        entry[last] = value
    return config


class TestConfiguration:
    @pytest.mark.parametrize(
        ("other", "said"),
        [
            ({}, ""),
            ({"dataset_dir": "/data/b", "ckpt_dir": "/elsewhere", "num_workers": 0}, ""),
            ({"train__dataloader__num_workers": 0, "initialize": [], "imports": []}, ""),
            ({"teacher_ckpt": "/elsewhere/teacher.pt"}, ""),
            ({"learning_rate": 0.2}, "learning_rate 0.1 and not 0.2"),
            ({"share": "1/2"}, "share '1/4' and not '1/2'"),
            ({"focal__gamma": 3.0}, "focal::gamma 2.0 and not 3.0"),
            ({"train__dataloader__batch_size": 3}, "train::dataloader::batch_size 2 and not 3"),
            ({"max_epochs": 1}, "max_epochs 60 and not 1"),
            ({"more": True}, "more None and not True"),
        ],
    )
    def test_what_differs_is_told_by_what_a_person_types(self, other, said):
        assert differences(configuration_identity(CONFIG), configuration_identity(changed(**other))) == said

    def test_numbers_in_a_function_are_compared(self):
        other = changed(loss=CONFIG["loss"].replace("0.5", "0.4"))
        assert differences(configuration_identity(CONFIG), configuration_identity(other)).startswith("loss '$lambda")

    def test_more_epochs_are_no_other_run(self):
        one, two = (configuration_identity(changed(max_epochs=n), epochs=False) for n in (1, 2))
        assert one == two

    def test_is_what_a_checkpoint_can_hold(self, tmp_path):
        config = CONFIG | {"shape": (1, 2), "network": torch.nn.Conv2d(1, 1, 1), "file": Path("/a/b")}
        found = configuration_identity(config)
        torch.save(found, tmp_path / "checkpoint.pt")
        assert torch.load(tmp_path / "checkpoint.pt", weights_only=True) == found == json.loads(json.dumps(found))
        assert (found["shape::0"], found["network"], found.get("file")) == (1, "Conv2d", None)

    def test_what_was_stored_with_paths_is_comparable(self):
        stored = configuration_identity(CONFIG) | {"teacher_ckpt": "a/b.pt", "device": "cuda"}
        assert comparable(stored) == configuration_identity(CONFIG)

    def test_folders_of_windows_are_paths(self, monkeypatch):
        monkeypatch.setattr("os.sep", "\\")
        assert configuration_identity({"a": "C:/data", "b": "C:\\data", "c": "nearest"}) == {"c": "nearest"}


class TestRun:
    def test_without_a_configuration_the_trainer_tells(self):
        found = run_identity(make_trainer(), [distilling(Teacher(teacher_net()))])
        assert found.pop("weights of the teachers").startswith("checksum ")
        assert found == {
            "network": "Conv2d",
            "parameters": 4,
            "batch size": 2,
            "iterations an epoch": 3,
            "accumulation steps": 1,
            "optimizer": "SGD",
            "learning rate": 0.1,
            "distillation": "1 supervised, distilled from Conv2d by 0.1 kd",
            "training cases": "6 slices of 2 cases, checksum 96624e8b",
            "unlabelled images": None,
            "processes": 1,
        }

    @pytest.mark.parametrize(
        ("options", "differs"),
        [
            ({"items": [{"case": case, "slice": n} for case in ("a", "z") for n in range(3)]}, {"training cases"}),
            ({"batch": 3}, {"batch size", "iterations an epoch"}),
            ({"rate": 0.2}, {"learning rate"}),
            ({"accumulation_steps": 2}, {"accumulation steps"}),
        ],
    )
    def test_other_trainers(self, options, differs):
        one, two = run_identity(make_trainer(), []), run_identity(make_trainer(**options), [])
        assert {name for name in one if one[name] != two[name]} == differs

    def test_other_processes_are_another_run(self, monkeypatch):
        one = run_identity(make_trainer(), [], CONFIG)
        monkeypatch.setattr(module_of("run_identity"), "get_world_size", lambda: 2)
        assert differences(one, run_identity(make_trainer(), [], CONFIG)) == "processes 1 and not 2"

    def test_with_a_configuration_its_entries_tell(self):
        one = run_identity(make_trainer(), [], CONFIG)
        two = run_identity(make_trainer(batch=3), [], changed(learning_rate=0.2, max_epochs=9))
        assert differences(one, two) == "learning_rate 0.1 and not 0.2"

    def test_images_without_labels(self):
        more = [{"image": torch.zeros(1, 1, 2, 2)}]
        one, two = (
            run_identity(make_trainer(), [distilling(Teacher(teacher_net()), unlabelled=each)], CONFIG)
            for each in (None, more)
        )
        assert one["unlabelled images"] is None
        assert "1 images without labels" in two["unlabelled images"]

    def test_is_found_as_a_workflow_starts(self, tmp_path):
        config = {
            "imports": ["$import monai_kd.bundle.check_overrides as found"],
            "learning_rate": 0.3,
            "initialize": ["$open(@bundle_root + '/said', 'w').write(repr(found.running_configuration()))"],
            "bundle_root": str(tmp_path),
            "run": [],
        }
        (tmp_path / "train.json").write_text(json.dumps(config))
        workflow = ConfigWorkflow(str(tmp_path / "train.json"), workflow_type=None, logging_file=False)
        workflow.initialize()
        assert "'learning_rate': 0.3" in (tmp_path / "said").read_text()


def module_of(name: str) -> Any:
    assert module.__name__ == f"monai_kd.bundle.{name}"
    return module


def weights(*handlers: Any) -> str:
    return run_identity(make_trainer(), list(handlers))["weights of the teachers"]


class TestTeachers:
    def test_other_weights(self):
        one, same, other = (weights(distilling(Teacher(teacher_net(seed=seed)))) for seed in (0, 0, 1))
        assert one == same != other

    def test_members_of_a_team(self):
        teams = [TeacherTeam([Teacher(teacher_net()), Teacher(teacher_net(seed=seed))]) for seed in (1, 2)]
        assert len({weights(distilling(team)) for team in teams}) == 2

    def test_probabilities_are_another_teacher(self):
        kinds = [Teacher(teacher_net(), outputs=outputs) for outputs in (None, "softmax", "sigmoid")]
        assert len({weights(distilling(kind)) for kind in kinds}) == 3

    @pytest.mark.filterwarnings("ignore:`SoftLabelCorrectionHandler` goes:FutureWarning")
    def test_assistants_in_both_forms(self):
        def found(seed: int) -> list[str]:
            corrections = [AssistantCorrection(Teacher(teacher_net(seed=seed))), SimilarityCorrection()]
            new = distilling(CorrectedTeacher(Teacher(teacher_net()), corrections))
            old = distilling(Teacher(teacher_net())), SoftLabelCorrectionHandler(corrections)
            return [weights(new), weights(*old)]

        one, two = found(1), found(2)
        assert one[0] == one[1] != two[0] == two[1]

    def test_of_false_pixels_and_of_a_discriminator(self):
        discriminator: Any = torch.nn.Conv2d(3, 1, 1)
        optimizer = torch.optim.SGD(discriminator.parameters(), 0.1)
        adversary = AdversarialDistillationHandler(Teacher(teacher_net()), discriminator, optimizer, [])
        found = {weights(each) for each in (adversary, FalsePixelHandler(Teacher(teacher_net())))}
        assert found == {weights(distilling(Teacher(teacher_net())))}


def test_identity_of_an_earlier_release_is_known():
    earlier = {"network": "UNet", "training data": "2 cases", "transforms": "checksum 1", "objective": ""}
    assert is_of_earlier_release(earlier)
    assert not is_of_earlier_release(run_identity(make_trainer(), [], CONFIG))
    assert not is_of_earlier_release({})
