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

"""Training of the case: by MONAI's trainer with a handler, and by hand, which it is compared with."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from monai.engines import SupervisedTrainer
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from monai_kd.handlers import DistillationHandler, DistillationTerm
from monai_kd.networks import Teacher
from tests.handlers.engine_case import make_batches, make_data, teacher_net

Maps = dict[str, torch.Tensor]


def segmentation_loss(logits: Any, label: torch.Tensor) -> torch.Tensor:
    """The supervised loss of the case: cross entropy, of the first output if there are several."""
    logits = logits if isinstance(logits, torch.Tensor) else logits[0]
    return F.cross_entropy(logits.float(), label[:, 0].long())


def adam(parameters: Iterable[Any]) -> torch.optim.Optimizer:
    """An optimizer that remembers, so that one wrong gradient shows in all later steps."""
    return torch.optim.Adam(parameters, lr=1e-2)


def sgd(parameters: Iterable[Any]) -> torch.optim.Optimizer:
    """An optimizer whose steps are as close as the gradients are, where those cannot be equal bit for bit."""
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9)


class On:
    """A handler that calls a function at an event."""

    def __init__(self, event: Any, call: Callable[[Any], Any]) -> None:
        self.event, self.call = event, call

    def attach(self, engine: Any) -> None:
        """Register with an engine."""
        engine.add_event_handler(self.event, lambda engine: self.call(engine))


def make_trainer(
    student: nn.Module,
    handlers: Sequence[Any] = (),
    data: Sequence[Any] | None = None,
    epochs: int = 2,
    optimizer: torch.optim.Optimizer | None = None,
    **kwargs: Any,
) -> SupervisedTrainer:
    """MONAI's trainer on the case, four iterations of two images an epoch."""
    return SupervisedTrainer(
        device=torch.device(kwargs.pop("device", "cpu")),
        max_epochs=epochs,
        train_data_loader=DataLoader(make_data() if data is None else data, batch_size=2),
        network=student,
        optimizer=adam(student.parameters()) if optimizer is None else optimizer,
        loss_function=kwargs.pop("loss_function", segmentation_loss),
        train_handlers=list(handlers),
        **kwargs,
    )


def handler_of(*terms: DistillationTerm, teacher: Any = None, **options: Any) -> DistillationHandler:
    """A handler of these terms and this teacher, or the case's."""
    teacher = teacher_net() if teacher is None else teacher
    return DistillationHandler(Teacher(teacher) if isinstance(teacher, nn.Module) else teacher, terms, **options)


def distil(
    student: nn.Module, terms: Sequence[DistillationTerm], teacher: Any = None, **kwargs: Any
) -> tuple[DistillationHandler, SupervisedTrainer]:
    """Train the student with a handler of these terms; returns the handler and the trainer."""
    options = ("supervised_weight", "monitor_interval", "drown_ratio", "student")
    own = {key: kwargs.pop(key) for key in options if key in kwargs}
    handler = handler_of(*terms, teacher=teacher, **own)
    trainer = make_trainer(student, [handler, *kwargs.pop("handlers", ())], **kwargs)
    trainer.run()
    return handler, trainer


def loop_by_hand(
    student: Any,
    teacher: Any,
    distillation: Callable[[Maps, Maps, torch.Tensor, float], list[torch.Tensor]],
    epochs: int = 2,
    adapters: Sequence[nn.Module] = (),
    supervised_weight: float = 1.0,
    accumulation: int = 1,
    autocast: Callable[[], Any] = nullcontext,
    scaler: torch.amp.GradScaler | None = None,
    batches: Sequence[dict[str, torch.Tensor]] | None = None,
    mean_gradients: Callable[[nn.Module], None] | None = None,
    make_optimizer: Callable[[Any], torch.optim.Optimizer] = adam,
) -> None:
    """
    Distillation as one would write it out: no handler and no events. ``distillation`` gets the maps of all layers of
    both networks (the logits as ``"head"``, the student's of several as ``"finest"``), the label and the epochs done,
    and returns weighted terms.
    """
    scaler = torch.amp.GradScaler("cpu", enabled=False) if scaler is None else scaler
    batches = make_batches() if batches is None else batches
    teacher = copy.deepcopy(teacher).eval().requires_grad_(False)
    maps: tuple[Maps, Maps] = ({}, {})
    handles = []
    for network, own in zip((student, teacher), maps):
        network.relu.inplace = False
        for name, module in network.named_children():
            note = lambda module, inputs, output, own=own, name=name: own.update({name: output})  # noqa: E731
            handles.append(module.register_forward_hook(note))
    optimizer = make_optimizer([*student.parameters(), *(p for adapter in adapters for p in adapter.parameters())])
    student.train()
    for step in range(epochs * len(batches)):
        batch = batches[step % len(batches)]
        if step % accumulation == 0:
            optimizer.zero_grad(set_to_none=False)
        with autocast():
            logits = student(batch["image"])
            maps[0]["finest"] = logits if isinstance(logits, torch.Tensor) else logits[0]
            with torch.no_grad():
                teacher(batch["image"])
            loss = segmentation_loss(logits, batch["label"])
        loss = loss if supervised_weight == 1 else supervised_weight * loss
        for term in distillation(maps[0], maps[1], batch["label"], step / len(batches)):
            loss = loss + term
        scaler.scale(loss / accumulation if accumulation > 1 else loss).backward()
        for module in (student, *adapters) if mean_gradients is not None else ():
            mean_gradients(module)
        if (step + 1) % accumulation == 0:
            scaler.step(optimizer)
            scaler.update()
    for handle in handles:
        handle.remove()
    student.relu.inplace = True
