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

"""What each training must do whatever its numbers are, which are in test_papers_values.py."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import monai.utils
import pytest
import torch
from ignite.engine import Engine
from monai.bundle import ConfigParser
from monai.handlers import LrScheduleHandler

from monai_kd.networks import FeatureCapture
from tests.bundles.as_trained import TRAININGS, AsTrained
from tests.bundles.journey import BUNDLES, CT, HEADNECK, POLYP, TEAMS, XPNET

every_bundle = pytest.mark.parametrize("name", BUNDLES)

BEST = [(name, overlay) for name, overlay in TRAININGS if overlay != "train_3d.yaml"]


@pytest.mark.parametrize(("name", "overlay"), BEST)
def test_weights_of_the_best_epoch_are_kept(tmp_path, tiny_data, name, overlay):
    """Of three; of the assistant that is no segmentation network those of the last."""
    network = torch.nn.Linear(1, 1, bias=False)
    training = AsTrained(name, tiny_data(name), overlay, network=network, bundle_root=str(tmp_path))
    saver, best = training.get("validate::best"), Path(training.get("best_ckpt"))
    stage = Path(overlay).stem.removeprefix("train_") or "model"
    assert best.name == f"{'student_alone' if stage == 'student' else stage}.pt"
    evaluator = Engine(lambda *_: None)
    evaluator.state.key_metric_name = "dice"
    saver.attach(evaluator)
    for epoch, score in enumerate((0.3, 0.8, 0.5), start=1):
        evaluator.state.metrics = {"dice": score}
        with torch.no_grad():
            network.weight.fill_(epoch)
        saver.metrics_completed(evaluator)
    assert float(torch.load(best, weights_only=True)["weight"]) == (
        3 if stage == "assistant_f" else 2
    )


EVALUATIONS = {name: {"voe", "rvd"} if name in CT else {"iou"} for name in BUNDLES}


@every_bundle
def test_evaluation_leaves_the_background_out(trained, tiny_data, name):
    evaluation = AsTrained(name, tiny_data(name), "evaluate.yaml")
    metrics = evaluation.get("validate::evaluator::additional_metrics")
    assert set(metrics) == EVALUATIONS[name]
    assert not any(metric.metric_fn.include_background for metric in metrics.values())
    for key in ("preprocessing", "postprocessing", "key_metric", "inferer"):
        assert evaluation.parser.get(f"validate::{key}") == trained(name).parser.get(
            f"validate::{key}"
        ), key


@pytest.mark.parametrize(("name", "overlay"), TRAININGS)
def test_what_is_trained_is_resumed(trained, tiny_data, name, overlay):
    """Network, optimizer, schedule, best score, and what else changes from step to step."""
    small = "$torch.nn.Conv2d(1, 1, 1)"
    training = (
        AsTrained(name, tiny_data(name), overlay, network=small) if overlay else trained(name)
    )
    state, trainer = training.get("resume::state"), training.trainer
    assert state["model"] is trainer.get("network", trainer.get("g_network"))
    assert state["optimizer"] is training.optimizer()
    assert state["best"] is training.get("validate::best")
    assert state["trainer"] is trainer
    handler = training.handler("LrScheduleHandler")
    assert (handler is None) is ("lr_scheduler" not in training.parser.get())
    if isinstance(handler, LrScheduleHandler):
        assert state["lr_scheduler"] is handler.lr_scheduler
        assert handler.lr_scheduler.optimizer is training.optimizer()
    assert state.get("adversarial") is training.handler("AdversarialDistillationHandler")
    assert state.get("false_pixels") is training.handler("FalsePixelHandler")
    if "d_network" in trainer:
        assert state["patch_discriminator"] is trainer["d_network"]
        assert state["patch_optimizer"] is trainer["d_optimizer"]


METHOD = {XPNET: ["AdversarialDistillationHandler"]}
METHOD |= dict.fromkeys(TEAMS, ["DistillationHandler"])
FIRST = {"train_assistant_f.yaml": ["FalsePixelHandler"], "train_teacher2.yaml": ["Pix2PixHandler"]}
FIRST |= {"train_3d.yaml": ["DistillationHandler"]}
TEACHING = {handler for handlers in (*METHOD.values(), *FIRST.values()) for handler in handlers}


@pytest.mark.parametrize(("name", "overlay"), TRAININGS)
def test_only_the_student_distils(trained, tiny_data, name, overlay):
    """Stages of teachers and the student alone have no teacher; the student has all that the method needs."""
    small = "$torch.nn.Conv2d(1, 1, 1)"
    training = (
        AsTrained(name, tiny_data(name), overlay, network=small) if overlay else trained(name)
    )
    handlers = [type(each).__name__ for each in training.trainer["train_handlers"] if each]
    first = FIRST.get(overlay, []) if overlay else METHOD.get(name, ["DistillationHandler"])
    assert [handler for handler in handlers if handler in TEACHING] == first
    if not overlay:
        assert handlers[: len(first)] == first  # before what logs and validates
    assert handlers.count("EpochSeedHandler") == 1
    assert training.handler("EpochSeedHandler").datasets[0] is training.loader().dataset


@every_bundle
def test_everything_drawn_is_seeded_first(monkeypatch, tiny_data, name):
    seeds: list[Any] = []
    monkeypatch.setattr(monai.utils, "set_determinism", lambda seed: seeds.append(seed))
    for files in ((), ("multi_gpu_train.yaml",), ("evaluate.yaml",)):
        training = AsTrained(name, tiny_data(name), *files, seed=7, rank=0)
        lines = [str(line) for line in training.parser.get("initialize")]
        (at,) = [number for number, line in enumerate(lines) if "set_determinism" in line]
        assert not [line for line in lines[:at] if "@train" in line or "@network" in line]
        training.get(f"initialize::{at}")
    assert seeds == [7] * 3


@every_bundle
def test_several_processes_share_the_images(name):
    """Each sees a part of them in another order every epoch; validation sees each once."""
    parser = ConfigParser()
    configs = BUNDLES[name] / "configs"
    parser.read_config([str(configs / "train.yaml"), str(configs / "multi_gpu_train.yaml")])
    training, validation = parser.get("train::sampler"), parser.get("validate::sampler")
    assert training == {
        "_target_": "DistributedSampler",
        "dataset": "@train::dataset",
        "even_divisible": True,
        "shuffle": True,
    }
    assert validation == {
        "_target_": "DistributedSampler",
        "dataset": "@validate::dataset",
        "even_divisible": False,
        "shuffle": False,
    }
    assert parser.get("train::dataloader::sampler") == "@train::sampler"
    assert parser.get("validate::dataloader::sampler") == "@validate::sampler"
    assert parser.get("train::dataloader::shuffle") is False  # the sampler shuffles
    assert parser.get("train::dataloader::drop_last") is True
    assert parser.get("network::module") == "$@network_def.to(@device)"


Sizes = list[tuple[int, int]]


def sizes(network: torch.nn.Module, layers: Sequence[str], channels: int, side: int = 64) -> Sizes:
    """Channels and size of the maps of some layers, the size as a part of the image's."""
    capture = FeatureCapture(network.eval(), list(layers))
    with torch.no_grad():
        network(torch.zeros(1, channels, side, side))
    found = [tuple(capture.features[layer].shape) for layer in layers]
    capture.remove()
    return [(shape[1], side // shape[-1]) for shape in found]


LAYERS: list[tuple[str, Callable[[AsTrained], Sequence[str]], Sizes, Sizes]] = [
    *(
        (name, lambda t: t.get("student_layers"), [(16, 2), (128, 8)], [(64, 2), (128, 8)])
        for name in CT
    ),
    (POLYP, lambda t: t.get("scale_layers"), [(1, 1), (1, 1)], [(1, 1), (1, 1)]),
    (XPNET, lambda t: t.get("scale_layers"), [(32, 1), (128, 4), (256, 8), (64, 2)], []),
]


@pytest.mark.parametrize(("name", "layers", "own", "teachers"), LAYERS)
def test_layers_are_where_the_papers_have_them(trained, name, layers, own, teachers):
    """
    EMKD: at 1/2 and 1/8 of the image (III-B); KDAS: both maps of logits; XP-Net: at 1, 1/4, 1/8 and 1/2 (2.2.3).
    """
    training = trained(name)
    channels = 1 if name in CT else 3
    student = training.trainer["network"]
    was_training = student.training
    assert sizes(student, layers(training), channels) == own
    student.train(was_training)
    kind = "AdversarialDistillationHandler" if name == XPNET else "DistillationHandler"
    teacher = training.handler(kind).teacher
    network = next(iter(teacher.members.values()), teacher).network
    taught = training.get("teacher_layers") if name in CT else layers(training)
    assert sizes(network, taught, channels) == (teachers or own)


@pytest.mark.parametrize("name", [HEADNECK])
def test_loss_of_organs_is_the_mean_over_them(trained, name):
    """0.5 focal (a mean over pixels) + 0.5 Dice of each organ in the whole batch, by hand."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 5, 8, 8, generator=generator)
    label = torch.randint(0, 5, (3, 1, 8, 8), generator=generator)
    probability = logits.softmax(1)
    right = probability.gather(1, label)
    focal = (-((1 - right) ** 2) * right.log()).mean()
    truth = torch.nn.functional.one_hot(label[:, 0], 5).movedim(-1, 1).float()
    overlap = (probability * truth).sum((0, 2, 3))
    dice = 1 - (2 * overlap + 1) / (probability.sum((0, 2, 3)) + truth.sum((0, 2, 3)) + 1)
    loss = trained(name).trainer["loss_function"]
    torch.testing.assert_close(loss(logits, label.float()), 0.5 * focal + 0.5 * dice[1:].mean())


def test_no_bundle_is_left_out():
    assert {name for name, _ in TRAININGS} == set(BUNDLES)
