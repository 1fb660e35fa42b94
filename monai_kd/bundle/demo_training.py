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

"""The networks of the demo, how they are trained and how they are tested."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import IgniteMetricHandler, LrScheduleHandler, MeanDice, from_engine
from monai.inferers import SliceInferer
from monai.losses import DiceCELoss
from monai.networks.nets import UNet
from monai.transforms import AsDiscreted
from torch import nn

from monai_kd.bundle.demo_cases import CLASSES, SIZE, DemoCases, SliceBatches
from monai_kd.handlers import CaseMetricsHandler, DistillationHandler, DistillationTerm
from monai_kd.losses import KDLoss
from monai_kd.metrics import RelativeVolumeDifferenceMetric
from monai_kd.networks import Teacher
from monai_kd.report import CaseMetrics, read_cases

CHANNELS = {"teacher": (16, 32, 64, 128), "student": (4, 8, 16)}
LEARNING_RATE = {"teacher": 4e-3, "student": 2e-2}  # small networks need larger steps
BATCH = {"teacher": 16, "student": 8}
ITERATIONS = 50  # of an epoch
EPOCHS = (6, 8)  # fewest and most; what is gained holds in between
SECONDS = 110.0  # for the three trainings
ALL_THREE = 3.0  # one iteration of each network, in steps of the teacher
AUTO_SHARE = 1.0  # the distillation gradient is as large as the supervised one
CPU = torch.device("cpu")
OUTPUTS = from_engine(["pred", "label"])


def demo_network(kind: str, seed: int) -> UNet:
    """The ``"teacher"``, or the ``"student"``, which has 60 times fewer weights."""
    channels = CHANNELS[kind]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return UNet(
            spatial_dims=2,
            in_channels=1,
            out_channels=1 + len(CLASSES),
            channels=channels,
            strides=(2,) * (len(channels) - 1),
            act="relu",
            norm="batch",
        )


def seconds_a_step(repeats: int = 4) -> float:
    """The time of a training step of the teacher on this machine: the fastest of some."""
    network = demo_network("teacher", 0)
    loss_function = DiceCELoss(softmax=True, to_onehot_y=True)
    image = torch.zeros(BATCH["teacher"], 1, SIZE, SIZE)
    seconds = []
    for _ in range(repeats + 1):  # the first prepares
        start = time.perf_counter()
        loss_function(network(image), image).backward()
        seconds.append(time.perf_counter() - start)
    return min(seconds[1:])


def epochs_for(step: float) -> int:
    """The number of epochs, alike for all networks, that fits this machine."""
    fewest, most = EPOCHS
    epoch = ITERATIONS * ALL_THREE * step
    return min(max(int(SECONDS / epoch), fewest), most)


class _EpochLine:
    """Prints a line at the end of each epoch, and keeps the validation Dice."""

    def __init__(self, network: nn.Module, cases: Sequence[dict[str, Any]], say: Callable) -> None:
        self.evaluator = _evaluator(network, cases)
        self.say = say
        self.start = time.monotonic()
        self.losses: list[float] = []
        self.curve: list[float] = []

    def attach(self, engine: Any) -> None:
        """Register with a trainer."""
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._iteration)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._epoch)

    def _iteration(self, engine: Any) -> None:
        self.losses.append(float(engine.state.output[0]["loss"]))

    def _epoch(self, engine: Any) -> None:
        self.evaluator.run()
        self.curve.append(float(self.evaluator.state.metrics["dice"]))
        loss = sum(self.losses) / len(self.losses)
        self.losses.clear()
        self.say(
            f"  epoch {engine.state.epoch}/{engine.state.max_epochs}: loss {loss:.3f}, "
            f"validation Dice {self.curve[-1]:.3f}, {time.monotonic() - self.start:.0f} s"
        )


def train(
    kind: str,
    cases: DemoCases,
    epochs: int,
    seed: int,
    say: Callable,
    handlers: Sequence[Any] = (),
) -> tuple[UNet, list[float]]:
    """
    Train a network for so many epochs; the last weights count.

    Args:
        kind: ``"teacher"``, with the cases from elsewhere, or ``"student"``, with the few labelled
            ones here.
        cases: of the demo.
        epochs: of 50 iterations.
        seed: of the weights and of the batches.
        say: gets a line for each epoch.
        handlers: what distils.

    Returns:
        the network, and the validation Dice after each epoch.
    """
    network = demo_network(kind, seed)
    labelled = cases.elsewhere if kind == "teacher" else cases.labelled
    optimizer = torch.optim.Adam(network.parameters(), LEARNING_RATE[kind])
    steps = epochs * ITERATIONS + 1
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        LEARNING_RATE[kind],
        total_steps=steps,
        pct_start=0.15,
    )
    line = _EpochLine(network, cases.validation, say)
    SupervisedTrainer(
        device=CPU,
        max_epochs=epochs,
        train_data_loader=SliceBatches(labelled, BATCH[kind], ITERATIONS, seed),
        epoch_length=ITERATIONS,
        network=network,
        optimizer=optimizer,
        loss_function=DiceCELoss(softmax=True, to_onehot_y=True),
        train_handlers=[
            *handlers,
            LrScheduleHandler(schedule, print_lr=False, epoch_level=False),
            line,
        ],
    ).run()
    return network.eval(), line.curve


def distillation(teacher: UNet, cases: DemoCases, seed: int) -> DistillationHandler:
    """
    What distils: the teacher's class probabilities, on the labelled slices and on as many without a
    label. The mean over pixels is taken class by class, since a tumor has 1 % of the pixels.
    """
    unlabelled = SliceBatches(cases.unlabelled, BATCH["student"], ITERATIONS, seed + 1, label=False)
    term = DistillationTerm(KDLoss(temperature=1.0, balance="class"), weight="auto")
    return DistillationHandler(
        Teacher(teacher),
        [term],
        auto_share=AUTO_SHARE,
        unlabelled=unlabelled,
        pseudo_labels=True,
    )


def _inferer() -> SliceInferer:
    return SliceInferer(
        roi_size=(SIZE, SIZE),
        spatial_dim=2,
        sw_batch_size=32,
    )


def predict(network: nn.Module, image: torch.Tensor) -> torch.Tensor:
    """Logits (B, C, X, Y, Z) of volumes (B, 1, X, Y, Z), slice by slice."""
    with torch.no_grad():
        return _inferer()(image, network)


def evaluate(network: nn.Module, cases: DemoCases, folder: Path) -> list[CaseMetrics]:
    """Evaluate a network on the test cases; writes ``cases.csv`` and ``summary.json``."""
    handler = CaseMetricsHandler(folder, CLASSES, metrics=("dice", "rvd"))
    _evaluator(network, cases.test, [handler]).run()
    return read_cases(folder / "cases.csv")


def _evaluator(
    network: nn.Module, cases: Sequence[dict[str, Any]], handlers: Sequence[Any] = ()
) -> SupervisedEvaluator:
    classes = 1 + len(CLASSES)
    dice = MeanDice(include_background=False, output_transform=OUTPUTS)
    rvd = RelativeVolumeDifferenceMetric(include_background=False)
    return SupervisedEvaluator(
        device=CPU,
        val_data_loader=DataLoader(Dataset(cases)),
        network=network,
        inferer=_inferer(),
        postprocessing=AsDiscreted(
            ["pred", "label"],
            argmax=[True, False],
            to_onehot=classes,
        ),
        key_val_metric={"dice": dice},
        additional_metrics={
            "rvd": IgniteMetricHandler(rvd, output_transform=OUTPUTS),
        },
        val_handlers=list(handlers),
    )
