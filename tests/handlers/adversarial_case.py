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

"""Adversarial distillation of the case: by MONAI's trainer with the handler, and by hand, which it is compared with."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from monai_kd.handlers import AdversarialDistillationHandler
from monai_kd.networks import Teacher, TeacherTeam
from monai_kd.networks.nets import HierarchicalDiscriminator
from tests.handlers.engine_case import make_batches, seeded, teacher_net
from tests.handlers.training import adam, segmentation_loss

LAYERS = ["norm", "middle"]


def discriminator_net(seed: int = 4, dims: int = 2) -> Any:
    """A discriminator of the case's images, its two classes and two of its layers."""
    channels = (6, 8) if dims == 2 else (6,)
    return seeded(lambda: HierarchicalDiscriminator(dims, 3, [[4, 1], [4, 1]], channels), seed)


def teacher_nets(number: int, **kwargs: Any) -> list[Any]:
    """Teachers of one form that say different things."""
    nets = [teacher_net(channels=4, **kwargs) for _ in range(number)]
    for i, net in enumerate(nets):
        net.head.weight.data *= 1 + i
    return nets


def adversary(nets: Sequence[nn.Module], **options: Any) -> AdversarialDistillationHandler:
    """A handler of these teachers, with a discriminator and an optimizer where none are given."""
    discriminator = options.pop("discriminator", None) or discriminator_net()
    optimizer = options.pop("optimizer", None) or adam(discriminator.parameters())
    teachers = [Teacher(net) for net in nets]
    teacher = options.pop("teacher", None) or (teachers[0] if len(teachers) == 1 else TeacherTeam(teachers))
    layers = options.pop("student_layers", LAYERS)
    return AdversarialDistillationHandler(teacher, discriminator, optimizer, layers, **({"weight": 0.5} | options))


def loop_by_hand(
    student: Any,
    nets: Sequence[Any],
    discriminator: Any,
    weight: float = 0.5,
    epochs: int = 2,
    accumulation: int = 1,
    autocast: Callable[[], Any] = nullcontext,
    scaler: torch.amp.GradScaler | None = None,
    in_turn: Callable[[int], list[int]] = lambda step: [0],
    max_accuracy: float = 1.0,
    seen: Callable[[torch.Tensor], torch.Tensor] = lambda logits: logits.float().softmax(1),
    batches: Sequence[dict[str, torch.Tensor]] | None = None,
    mean: Callable[[list[torch.Tensor]], None] = lambda tensors: None,
) -> list[dict[str, float]]:
    """
    Both losses and both steps as one would write them out: no handler and no events. ``in_turn`` gives the teachers of
    an optimizer's step, ``mean`` averages tensors over ranks in place. Returns what each iteration would log.
    """
    scaler = torch.amp.GradScaler("cpu", enabled=False) if scaler is None else scaler
    batches = make_batches() if batches is None else batches
    nets = [copy.deepcopy(net).eval().requires_grad_(False) for net in nets]
    maps: dict[int, dict[str, torch.Tensor]] = {id(network): {} for network in (student, *nets)}
    handles = []
    for network in (student, *nets):
        network.relu.inplace = False
        own = maps[id(network)]
        for name in LAYERS:
            note = lambda module, inputs, output, own=own, name=name: own.update({name: output})  # noqa: E731
            handles.append(getattr(network, name).register_forward_hook(note))

    def decide(judge: nn.Module, network: Any, logits: torch.Tensor, image: torch.Tensor, detach: bool) -> torch.Tensor:
        given = [seen(logits), *(maps[id(network)][name] for name in LAYERS)]
        first, *features = [tensor.detach() if detach else tensor for tensor in given]
        return judge(first, image, features).float()

    def mse(decision: torch.Tensor, target: float) -> torch.Tensor:
        return F.mse_loss(decision, torch.full_like(decision, target))

    optimizer, own_optimizer = adam(student.parameters()), adam(discriminator.parameters())
    student.train()
    log, steps = [], 0
    for iteration in range(epochs * len(batches)):
        image, label = (batches[iteration % len(batches)][key] for key in ("image", "label"))
        if iteration % accumulation == 0:
            optimizer.zero_grad()
            own_optimizer.zero_grad()
            accuracies = []
        frozen = copy.deepcopy(discriminator).requires_grad_(False)
        with autocast():
            logits = student(image)
            supervised = segmentation_loss(logits, label)
            adversarial = mse(decide(frozen, student, logits, image, detach=False), 1.0)
        loss = supervised + weight * adversarial
        scaler.scale(loss / accumulation if accumulation > 1 else loss).backward()
        mean([parameter.grad for parameter in student.parameters()])  # after each backward pass, as DDP
        with autocast():
            fake = decide(discriminator, student, logits, image, detach=True)
            real = [decide(discriminator, nets[i], nets[i](image), image, detach=True) for i in in_turn(steps)]
        own_loss = mse(fake, 0.0) + torch.stack([mse(each, 1.0) for each in real]).mean()
        scaler.scale(own_loss / accumulation if accumulation > 1 else own_loss).backward()
        right = [(each >= 0.5).float().mean() for each in real]
        accuracies.append(((fake <= 0.5).float().mean() + torch.stack(right).mean()) / 2)
        log.append(
            {
                "loss": loss.item(),
                "loss_supervised": supervised.item(),
                "loss_adversarial": adversarial.item(),
                "loss_adversarial_weighted": weight * adversarial.item(),
                "loss_discriminator": own_loss.item(),
                "discriminator_accuracy": accuracies[-1].item(),
            }
        )
        if (iteration + 1) % accumulation == 0:
            accuracy = torch.stack(accuracies).mean()
            mean([*(parameter.grad for parameter in discriminator.parameters()), accuracy])
            if accuracy <= max_accuracy:
                scaler.step(own_optimizer)
            scaler.step(optimizer)
            scaler.update()
            steps += 1
    for handle in handles:
        handle.remove()
    student.relu.inplace = True
    return log
