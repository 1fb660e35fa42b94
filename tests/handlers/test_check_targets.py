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

"""The weights of a teacher are never replaced by those of its student."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigWorkflow
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import CheckpointSaver, MeanDice, ValidationHandler

from monai_kd.bundle import BestCheckpointSaver
from monai_kd.handlers import DistillationHandler, DistillationTerm
from monai_kd.losses import KDLoss
from monai_kd.networks import Teacher, TeacherTeam
from tests.bundle.zoo_bundles import UNET, write_nested

MESSAGE = r"must not be saved over the weights of its teacher, but a `CheckpointSaver` writes to .*model\.pt"


def network() -> torch.nn.Module:
    return torch.nn.Conv2d(1, 2, 1)


@pytest.fixture
def file(tmp_path) -> Path:
    path = tmp_path / "models" / "model.pt"
    path.parent.mkdir()
    torch.save(network().state_dict(), path)
    return path


def last(folder: Path, student: Any) -> CheckpointSaver:
    return CheckpointSaver(str(folder), {"model": student}, save_final=True, final_filename="model.pt")


def best(folder: Path, student: Any) -> CheckpointSaver:
    return CheckpointSaver(
        str(folder), {"model": student}, save_key_metric=True, key_metric_filename="model.pt", key_metric_name="dice"
    )


def ours(folder: Path, student: Any) -> CheckpointSaver:
    return BestCheckpointSaver(folder / "model.pt", {"model": student})


def train(teacher: Any, folder: Path, saver: Any, validated: bool) -> None:
    student = network()
    batches = [{"image": torch.ones(1, 1, 4, 4), "label": torch.ones(1, 1, 4, 4)}]
    savers = [saver(folder, student)]
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=batches,
        network=student,
        key_val_metric={"dice": MeanDice(output_transform=lambda _: (torch.ones(1, 2, 4, 4),) * 2)},
        val_handlers=savers if validated else [],
        decollate=False,
    )
    handlers = [
        DistillationHandler(teacher, [DistillationTerm(KDLoss(), weight=1.0)]),
        ValidationHandler(1, evaluator),
    ]
    SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=1,
        train_data_loader=batches,
        network=student,
        optimizer=torch.optim.SGD(student.parameters(), 0.1),
        loss_function=lambda pred, label: pred.mean(),
        train_handlers=[*handlers, *([] if validated else savers)],
        decollate=False,
    ).run()


@pytest.mark.parametrize(("saver", "validated"), [(last, False), (best, True), (ours, True)])
@pytest.mark.parametrize("team", [False, True])
def test_saver_of_the_teachers_file_is_refused_before_the_first_step(file, saver, validated, team):
    before = file.read_bytes()
    teacher = Teacher(network(), file)
    teachers = TeacherTeam([teacher, Teacher(network())]) if team else teacher
    with pytest.raises(ValueError, match=MESSAGE):
        train(teachers, file.parent, saver, validated)
    assert file.read_bytes() == before


def test_another_name_of_the_same_file_is_refused(file, tmp_path):
    (tmp_path / "link").symlink_to(file.parent, target_is_directory=True)
    with pytest.raises(ValueError, match=MESSAGE):
        train(Teacher(network(), tmp_path / "link" / "model.pt"), file.parent, last, False)


def test_refusal_before_the_first_step_leaves_the_last_weights_of_an_earlier_run(file, tmp_path):
    """MONAI's saver of the last weights writes whenever a training ends with an error."""
    earlier = tmp_path / "student" / "model.pt"
    earlier.parent.mkdir()
    earlier.write_bytes(b"earlier")
    (tmp_path / "other.pt").write_bytes(file.read_bytes())
    teacher = Teacher(network(), tmp_path / "other.pt")
    teacher.network.weight.requires_grad_(True)  # a teacher that would be trained is refused

    def fails(folder: Path, student: Any) -> CheckpointSaver:
        student.weight = teacher.network.weight
        return last(folder, student)

    with pytest.raises(ValueError, match="share"):
        train(teacher, earlier.parent, fails, False)
    assert earlier.read_bytes() == b"earlier"


@pytest.mark.parametrize(("saver", "validated"), [(last, False), (best, True), (ours, True)])
def test_other_files_are_written(file, tmp_path, saver, validated):
    before = file.read_bytes()
    train(Teacher(network(), file), tmp_path / "student", saver, validated)
    assert (tmp_path / "student" / "model.pt").is_file()
    assert file.read_bytes() == before


def test_overlay_on_a_bundle_that_learns_from_itself_is_refused(tmp_path):
    """``network: .`` beside the bundle's own saver of models/model.pt."""
    bundle = write_nested(tmp_path / "bundle")
    before = (bundle / "models" / "model.pt").read_bytes()
    overlay = {
        "teacher": {"_target_": "monai_kd.networks.Teacher", "network": str(bundle)},
        "network_def": UNET | {"channels": [4, 8]},
        "distillation": {
            "_target_": "monai_kd.handlers.DistillationHandler",
            "teacher": "@teacher",
            "terms": [
                {
                    "_target_": "monai_kd.handlers.DistillationTerm",
                    "loss": {"_target_": "monai_kd.losses.KDLoss"},
                    "weight": 1.0,
                }
            ],
        },
        "initialize": ["$@distillation.attach(@train::trainer)"],
    }
    workflow = ConfigWorkflow(
        str(bundle / "configs" / "train.json"), logging_file=False, bundle_root=str(bundle), **overlay
    )
    workflow.initialize()
    with pytest.raises(RuntimeError) as error:  # MONAI's, of the expression that runs the trainer
        workflow.run()
    assert re.search(MESSAGE, str(error.value.__cause__))
    assert (bundle / "models" / "model.pt").read_bytes() == before
