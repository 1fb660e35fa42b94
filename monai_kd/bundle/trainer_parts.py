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

"""What a trainer is made of: its network, its data, and the handlers that distil."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from monai.engines import AdversarialTrainer
from torch import nn

from monai_kd.corrections import CorrectedTeacher
from monai_kd.data.case_name import case_names
from monai_kd.handlers import (
    AdversarialDistillationHandler,
    DistillationHandler,
    FalsePixelHandler,
    SoftLabelCorrectionHandler,
)
from monai_kd.networks import Teacher

Distilling = DistillationHandler | AdversarialDistillationHandler


def trained(trainer: Any) -> tuple[nn.Module, Any]:
    """The network that is trained and its optimizer; of an ``AdversarialTrainer`` the generator."""
    if isinstance(trainer, AdversarialTrainer):
        return trainer.state.g_network, trainer.state.g_optimizer
    return trainer.network, trainer.optimizer


def teaching(handlers: Sequence[Any]) -> list[Distilling]:
    """The handlers that distil."""
    return [handler for handler in handlers if isinstance(handler, Distilling)]


def teachers(handlers: Sequence[Any]) -> Iterable[Teacher]:
    """Teachers and assistants of a trainer's handlers, each member of a team."""
    chains = [each.chain for each in handlers if isinstance(each, SoftLabelCorrectionHandler)]
    for handler in handlers:
        if isinstance(handler, (Distilling, FalsePixelHandler)):
            teacher: Any = handler.teacher
            if isinstance(teacher, CorrectedTeacher):
                chains.append(teacher.chain)
                teacher = teacher.teacher
            yield from teacher.members.values() or [teacher]
    for chain in chains:
        assistants: Iterable[Any] = chain.assistants.values()
        for assistant in assistants:
            yield from assistant.members.values() or [assistant]


def size(network: nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


def content(dataset: Any) -> str:
    """How many of what a dataset holds."""
    number = len(case_names(dataset))
    count = f"{number} case{'s' if number > 1 else ''}"
    if number == 0:
        return f"{len(dataset)} items"
    if len(dataset) == number:
        return count
    items = list(getattr(dataset, "data", None) or [])
    return f"{len(dataset)} {'slices' if 'slice' in items[0] else 'items'} of {count}"
