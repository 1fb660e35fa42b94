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

"""What is told before a training, and which training is refused."""

from __future__ import annotations

import copy
import logging
import re
import sys
from pathlib import PureWindowsPath
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.bundle import ConfigParser
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import ValidationHandler
from monai.losses import DeepSupervisionLoss, DiceLoss
from monai.transforms import Compose, Lambdad, LoadImaged, RandFlipd, RandRotated, Resized

from monai_kd.bundle import log_run
from monai_kd.corrections import AssistantCorrection, SimilarityCorrection
from monai_kd.handlers import (
    AdversarialDistillationHandler,
    DistillationHandler,
    DistillationTerm,
    FalsePixelHandler,
    LinearSchedule,
    MultiScaleHandler,
    SoftLabelCorrectionHandler,
)
from monai_kd.losses import KDLoss
from monai_kd.networks import Teacher, TeacherTeam

SLICES = [{"case": case, "slice": number} for case in ("a", "b") for number in range(3)]


def start(
    items: Any = SLICES,
    validation: Any = ({"case": "c"},),
    batch: int = 2,
    interval: int = 1,
    terms: Any = (),
    **kwargs: Any,
) -> SupervisedTrainer:
    """`log_run` on a trainer of two epochs."""
    network = torch.nn.Conv2d(1, 2, 1)
    evaluator = SupervisedEvaluator(torch.device("cpu"), DataLoader(Dataset(validation), batch_size=1), network)
    handlers = [ValidationHandler(interval, evaluator)]
    if terms:
        handlers.append(DistillationHandler(kwargs.pop("teacher", Teacher(torch.nn.Conv2d(1, 2, 3))), terms))
    handlers += kwargs.pop("handlers", [])
    trainer = SupervisedTrainer(
        torch.device("cpu"),
        2,
        DataLoader(Dataset(items, kwargs.pop("transform", None)), batch_size=batch, drop_last=True),
        kwargs.pop("network", network),
        torch.optim.SGD(network.parameters(), 0.1, **kwargs.pop("options", {})),
        kwargs.pop("loss", torch.nn.MSELoss()),
        epoch_length=kwargs.pop("epoch_length", None),
        train_handlers=handlers,
        accumulation_steps=kwargs.pop("accumulation_steps", 1),
    )
    log_run(trainer, evaluator, handlers, "models/model.pt")
    return trainer


@pytest.fixture
def told(caplog) -> Any:
    caplog.set_level(logging.INFO, "monai_kd")
    return lambda: [record.getMessage() for record in caplog.records]


def test_two_lines_tell_what_is_trained(told):
    start(terms=[DistillationTerm(KDLoss(), 0.1), DistillationTerm(KDLoss(), LinearSchedule(0, 1, 5), name="late")])
    assert told() == [
        "training Conv2d (4 parameters) to models/model.pt: 2 epochs of 3 iterations of 2",
        "on 6 slices of 2 cases, validated on 1 case",
    ]


def test_other_data_and_no_teacher(told):
    start([{"case": "a"}, {"case": "b"}], validation=[1, 2, 3], batch=1)
    assert told()[1:] == ["on 2 cases, validated on 3 items", "without distillation"]


def test_case_on_both_sides_is_warned_of(told):
    start(validation=[{"case": "b"}, {"case": "c"}])
    assert told()[-1] == "b: both trained and validated on, scores will be too good"


def test_other_ranks_are_silent_but_refuse(told, monkeypatch):
    monkeypatch.setattr(sys.modules["monai_kd.bundle.log_run"], "get_rank", lambda: 1)
    start()
    assert told() == []
    with pytest.raises(ValueError, match="batch_size"):
        start(batch=7)


def settings(**kwargs: Any) -> dict[str, Any]:
    return start(**kwargs).state.settings


def test_settings_are_those_that_make_it_another_run():
    """What a checkpoint must have to be gone on with."""
    term = DistillationTerm(KDLoss(), 0.1)
    found = settings(terms=[term])
    for name in ("transforms", "weights of who teaches"):
        assert re.fullmatch("checksum [0-9a-f]{8}", found.pop(name))
    assert found == {
        "network": "Conv2d",
        "parameters": 4,
        "training data": "6 slices of 2 cases, checksum of their names 96624e8b",
        "batch size": 2,
        "gradient accumulation": None,
        "processes": None,
        "iterations an epoch": 3,
        "scales": None,
        "learning rate": 0.1,
        "optimizer": "SGD, dampening 0, maximize False, momentum 0, nesterov False, weight_decay 0",
        "discriminator": None,
        "discriminator's optimizer": None,
        "seed": None,
        "objective": "1 supervised, distilled from Conv2d by 0.1 kd",
        "layers": None,
        "corrections": None,
        "queues of false pixels": None,
        "loss reduction": "mean",
        "kd temperature": 4.0,
        "kd direction": "forward",
        "kd balance": "none",
        "kd activation": "softmax",
    }


@pytest.mark.parametrize(
    ("other", "differs"),
    [
        ({"items": [{"case": case, "slice": n} for case in ("a", "z") for n in range(3)]}, {"training data"}),
        ({"batch": 3}, {"batch size", "iterations an epoch"}),
        ({"terms": [DistillationTerm(KDLoss(), 0.2)]}, {"objective"}),
        ({"terms": [DistillationTerm(KDLoss(2.0), 0.1)]}, {"kd temperature"}),
        ({"network": torch.nn.Conv2d(1, 3, 1)}, {"parameters"}),
        ({"accumulation_steps": 2}, {"gradient accumulation"}),
        ({"interval": 2}, set()),
        ({"options": {"weight_decay": 0.1}}, {"optimizer"}),
        ({"options": {"foreach": False}}, set()),
        ({"transform": Compose([RandFlipd("image", prob=0.5)])}, {"transforms"}),
        ({"loss": DeepSupervisionLoss(DiceLoss(jaccard=True))}, {"loss loss jaccard"}),
        ({"handlers": [MultiScaleHandler()]}, {"scales"}),
        ({"teacher": Teacher(torch.nn.Conv2d(1, 2, 3, padding_mode="reflect"))}, {"weights of who teaches"}),
    ],
)
def test_other_settings_are_told_apart(other, differs):
    teacher = Teacher(torch.nn.Conv2d(1, 2, 3))
    common = {"teacher": teacher, "loss": DeepSupervisionLoss(DiceLoss())}
    one = settings(terms=[DistillationTerm(KDLoss(), 0.1)], **common)
    two = settings(**{"terms": [DistillationTerm(KDLoss(), 0.1)]} | common | other)
    assert {name for name in one if one[name] != two[name]} == differs


def test_other_number_of_processes_is_another_run(monkeypatch):
    """They share the batches, so that a step is taken on more or fewer images."""
    one = settings()
    monkeypatch.setattr(sys.modules["monai_kd.bundle.run_settings"], "get_world_size", lambda: 2)
    two = settings()
    assert {name: two[name] for name in one if one[name] != two[name]} == {"processes": 2}


def test_folders_of_windows_are_no_settings(monkeypatch):
    """The data may have moved; `C:/data` and `C:\\data` are folders there."""
    describe = sys.modules["monai_kd.bundle.run_settings"]._describe
    monkeypatch.setattr("os.sep", "\\")
    texts = ["C:/data", str(PureWindowsPath("C:/data/LiTS")), "nearest"]
    assert [describe(text) for text in texts] == ["", "", "nearest"]


def test_layers_of_terms_are_settings():
    def found(*layers: str) -> str:
        network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1), torch.nn.ReLU())
        term = DistillationTerm(KDLoss(), 0.1, student_layer=layers, teacher_layer=layers)
        return settings(terms=[term], network=network, teacher=Teacher(network))["layers"]

    assert found("0", "1") == "0, 1 of the student, 0, 1 of the teacher"
    assert found("1", "0") == "1, 0 of the student, 1, 0 of the teacher"


@pytest.mark.parametrize(
    ("one", "two", "equal"),
    [
        (RandRotated("image", range_x=0.3), RandRotated("image", range_x=0.3), True),
        (RandRotated("image", range_x=0.3), RandRotated("image", range_x=0.4), False),
        (RandFlipd("image", prob=0.1), RandFlipd("image", prob=0.2), False),
        (Resized("image", (8, 8)), Resized("image", (8, 9)), False),
        (Compose([Resized("image", 8), RandFlipd("image")]), Compose([RandFlipd("image"), Resized("image", 8)]), False),
        (LoadImaged("image"), LoadImaged("image"), True),
        (Lambdad("image", abs), Lambdad("image", len), True),
    ],
)
def test_transforms_are_told_apart_by_their_options(one, two, equal):
    """Functions are not; what has been drawn is not looked at."""
    if isinstance(one, RandRotated):
        one.set_random_state(3)
    checksums = [settings(transform=Compose([each]))["transforms"] for each in (one, two)]
    assert (checksums[0] == checksums[1]) == equal


def test_corrections_and_queues_are_settings():
    def found(name: str, **options: Any) -> Any:
        return settings(terms=[DistillationTerm(KDLoss())], teacher=teacher, **options)[name]

    teacher = Teacher(torch.nn.Conv2d(1, 2, 1))
    one, two = (SoftLabelCorrectionHandler([SimilarityCorrection(max_candidates=n)]) for n in (1, 2))
    assert found("corrections") is None
    assert found("corrections", handlers=[one]) != found("corrections", handlers=[two])
    queues = [FalsePixelHandler(teacher, length=length) for length in (8, 9)]
    assert [found("queues of false pixels", handlers=[each]) for each in queues] == [
        "8 pixels, 256 of a batch",
        "9 pixels, 256 of a batch",
    ]


def test_assistants_are_of_who_teaches():
    def found(assistant: torch.nn.Module) -> str:
        correction = SoftLabelCorrectionHandler([AssistantCorrection(Teacher(assistant))])
        return settings(terms=[DistillationTerm(KDLoss())], teacher=teacher, handlers=[correction])[
            "weights of who teaches"
        ]

    teacher, one, two = Teacher(torch.nn.Conv2d(1, 2, 1)), torch.nn.Conv2d(1, 2, 1), torch.nn.Conv2d(1, 2, 1)
    assert found(one) == found(one)
    assert found(one) != found(two)


def test_dataset_below_one_batch_is_refused():
    """MONAI skips such a training with a warning, and no weights are written."""
    with pytest.raises(
        ValueError, match="`batch_size` must not exceed the size of the training dataset, but got 7 and 6"
    ):
        start(batch=7)


@pytest.mark.parametrize(("length", "batch"), [(20, 7), (0, 2)])
def test_training_without_iterations_is_refused(length, batch):
    """MONAI runs no iteration where the loader has no batch, whatever the length of an epoch."""
    with pytest.raises(ValueError, match="`batch_size` must not exceed the size of the training dataset, but got"):
        start(batch=batch, epoch_length=length)


@pytest.mark.parametrize("length", [-1, 1.5, "20"])
def test_length_that_is_no_number_of_iterations_is_refused(length):
    with pytest.raises(ValueError, match=f"`epoch_length` must be a whole number >= 1, but got {length!r}"):
        start(epoch_length=length)


def test_weights_that_are_not_finite_end_the_training(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where its checkpoints are claimed
    item = {"image": torch.zeros(1, 2, 2), "label": torch.zeros(2, 2, 2)}
    trainer = start(transform=lambda case: item, interval=2)
    last = trainer.state.epoch_length

    def spoil(engine):
        if engine.state.iteration == last:
            torch.nn.init.constant_(engine.network.weight, torch.nan)

    trainer.add_event_handler(Events.ITERATION_COMPLETED, spoil)
    with pytest.raises(ValueError, match="the weights of `network` must be finite, but got nan in `weight`"):
        trainer.run()
    assert trainer.state.epoch == 1


def test_training_that_is_never_validated_is_refused():
    with pytest.raises(ValueError, match="`val_interval` must not exceed `max_epochs`, but got 3 and 2; no epoch"):
        start(interval=3)
    start(interval=2)


@pytest.mark.parametrize(
    ("term", "message"),
    [
        ({"student_layer": "stem", "teacher_layer": "0"}, "`layer` must be a module of Sequential, but got `stem`"),
        ({"student_layer": "0", "teacher_layer": "stem"}, "`layer` must be a module of Sequential, but got `stem`"),
        ({"student_layer": "0", "teacher_layer": "3", "teacher": "b"}, "must be a module of Sequential, but got `3`"),
    ],
)
def test_unknown_layer_is_refused_before_anything_is_written(term, message):
    def network() -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1))

    teacher = Teacher(network())
    options = {"teacher": TeacherTeam({"a": teacher, "b": Teacher(network())}) if "teacher" in term else teacher}
    student = network()
    with pytest.raises(ValueError, match=message):
        start(terms=[DistillationTerm(KDLoss(), **term)], network=student, **options)
    start(terms=[DistillationTerm(KDLoss(), **term | {"student_layer": "0", "teacher_layer": "0"})],
          network=student, **options)  # fmt: skip
    assert not any(m._forward_hooks for part in (student, teacher.network) for m in part.modules())


def test_settings_are_read_without_code():
    """MONAI's losses hold enums, which a checkpoint that is read safely must not."""
    term = DistillationTerm(lambda student, teacher, label: 0.0, name="dice")
    term.loss = DiceLoss()
    found = settings(terms=[term])
    assert found["dice reduction"] == "mean"
    assert {type(value) for value in found.values()} <= {str, int, float, bool, type(None)}


def test_functions_of_a_configuration_are_compared():
    """By the numbers in them and what they refer to; a bundle's loss is one."""
    loss = "$lambda logits, label: @dice(logits, label) + {} * @focal(logits, label) + @more"
    entries = {"dice": {"_target_": "DiceLoss"}, "focal": {"_target_": "FocalLoss"}, "more": 0.1}
    entries |= {"loss": loss.format(0.5)}
    others = {
        "loss numbers": {"loss": loss.format(0.4)},
        "loss focal gamma": {"focal::gamma": 3.0},
        "loss more": {"more": 0.2},
    }

    def found(values: dict[str, Any]) -> dict[str, Any]:
        parser = ConfigParser(copy.deepcopy(entries))
        parser.update(values)
        return settings(loss=parser.get_parsed_content("loss"))

    one = found({})
    assert one == found({})
    for name, values in others.items():
        two = found(values)
        assert {key for key in one if one[key] != two[key]} == {name}


@pytest.mark.parametrize(
    ("other", "differs"),
    [
        ({"discriminator": torch.nn.Conv2d(3, 1, 1, stride=2)}, "discriminator"),  # weights of the same shape
        ({"rate": 0.2}, "discriminator's optimizer"),
        ({"momentum": 0.5}, "discriminator's optimizer"),
    ],
)
def test_other_discriminator_is_another_run(other, differs):
    one, two = (settings(handlers=[adversary(**options)]) for options in ({}, other))
    assert {name for name in one if one[name] != two[name]} == {differs}


def adversary(**options: Any) -> AdversarialDistillationHandler:
    """Two teachers and a discriminator, of no layer."""
    team = TeacherTeam([Teacher(torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1))) for _ in range(2)])
    discriminator = options.pop("discriminator", torch.nn.Conv2d(3, 1, 1))
    rate, momentum = options.pop("rate", 0.1), options.pop("momentum", 0.0)
    optimizer = torch.optim.SGD(discriminator.parameters(), rate, momentum)
    return AdversarialDistillationHandler(team, discriminator, optimizer, **({"student_layers": []} | options))


@pytest.mark.parametrize("other", [{"weight": 0.3}, {"turns": "both"}, {"max_accuracy": 0.8}, {"probabilities": False}])
def test_other_adversary_is_another_run(other):
    one, two = (settings(handlers=[adversary(**options)]) for options in ({}, other))
    assert {name for name in one if one[name] != two[name]} == {"objective"}


@pytest.mark.parametrize("who", ["student", "teacher"])
def test_layer_of_an_adversary_that_a_network_lacks(who):
    layers = {"student_layers": ["0"], "teacher_layers": ["0"]} | {f"{who}_layers": ["1"]}
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1))
    with pytest.raises(
        ValueError, match="`layer` must be a module of Sequential, but got `1`; the nearest names are `0`"
    ):
        start(network=network, handlers=[adversary(**layers)])
    start(network=network, handlers=[adversary(student_layers=["0"])])


def test_training_without_distillation_stops_at_a_loss_that_is_not_finite(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where its checkpoints are claimed
    items = [{"image": torch.ones(1, 2, 2), "label": torch.ones(2, 2, 2)} for _ in range(4)]
    trainer = start(items, loss=lambda logits, label: (logits - label).sum() * float("nan"))
    before = [parameter.clone() for parameter in trainer.network.parameters()]
    with pytest.raises(ValueError, match="`loss_function` must give a finite loss, but got nan .epoch 1, iter"):
        trainer.run()
    assert all(torch.equal(*pair) for pair in zip(before, trainer.network.parameters()))


def test_a_teacher_of_probabilities_is_another_one():
    network = torch.nn.Conv2d(1, 2, 1)
    kinds = [Teacher(network, outputs=outputs) for outputs in (None, "softmax", "sigmoid")]
    seen = [settings(terms=[DistillationTerm(KDLoss())], teacher=kind)["weights of who teaches"] for kind in kinds]
    assert len(set(seen)) == 3
