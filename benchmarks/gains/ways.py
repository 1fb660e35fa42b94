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

"""The ways to train a student of ``benchmarks/gains``."""

from __future__ import annotations

from typing import Any

import torch
from gains.tasks import Subset, Task
from gains.training import Batches, Mixed
from monai.losses import DiceLoss

from monai_kd.handlers import DistillationHandler, DistillationTerm, GradientShare
from monai_kd.losses import KDLoss
from monai_kd.networks import Teacher

WAYS = ("alone", "kd", "alone10", "unlabelled10")


class SoftDice(torch.nn.Module):
    """The Dice semimetric loss between the probabilities of student and teacher."""

    def __init__(self) -> None:
        super().__init__()
        self.loss = DiceLoss(softmax=True, soft_label=True, batch=True)

    def forward(self, student: torch.Tensor, teacher: torch.Tensor, label: Any = None) -> torch.Tensor:
        """Logits (B, C, *spatial) of both; the label is not used."""
        return self.loss(student, teacher.softmax(1))


def handlers_of(
    way: str, network: torch.nn.Module, large: torch.nn.Module, others: Subset, task: Task, seed: int, length: int
) -> list[Any]:
    """What is attached to the trainer."""
    name, *options = way.split(":")
    if name in ("alone", "alone10"):
        return []
    chosen = dict(option.split("=") for option in options)
    loss = KDLoss(temperature=float(chosen.get("T", 1)), balance=chosen.get("balance", "none"))
    weight: Any = "auto"
    if "weight" in chosen:
        weight = float(chosen["weight"])
    if "share" in chosen:
        weight = GradientShare(float(chosen["share"]))
    terms = [DistillationTerm(loss, weight)]
    if "dice" in chosen:
        terms.append(DistillationTerm(SoftDice(), weight))
    unlabelled = None
    if name == "unlabelled10":
        unlabelled = Batches(others, length, seed + 1000, task.flips, labelled=False)
    if "mix" in chosen:
        unlabelled = Mixed(task.train, length, seed + 1000, task.flips, labelled=False)
    interval = int(chosen.get("every", 50))
    return [
        DistillationHandler(Teacher(large), terms, unlabelled=unlabelled, pseudo_labels=True, monitor_interval=interval)
    ]
