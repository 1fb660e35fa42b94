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

"""What makes a training another one than that of a checkpoint."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from types import FunctionType
from typing import Any
from zlib import crc32

from ignite.distributed import get_world_size
from monai.engines import AdversarialTrainer
from torch import nn

from monai_kd.corrections import CorrectedTeacher, CorrectionChain
from monai_kd.corrections.correction_chain import describe_chain
from monai_kd.data.case_name import case_names
from monai_kd.handlers import (
    AdversarialDistillationHandler,
    DistillationHandler,
    EpochSeedHandler,
    FalsePixelHandler,
    MultiScaleHandler,
    SoftLabelCorrectionHandler,
)
from monai_kd.networks import Teacher
from monai_kd.networks.feature_capture import unwrap
from monai_kd.networks.weights_checksum import weights_checksum

Distilling = DistillationHandler | AdversarialDistillationHandler
PLAIN = (str, int, float, bool, type(None))


def run_settings(trainer: Any, handlers: Sequence[Any]) -> dict[str, str | int | float | None]:
    """
    What makes a run another one, so that a checkpoint of it is not gone on with: network, data, the options of
    transforms, losses, optimizer and scales, gradient accumulation, the number of processes, seed, objective with its
    layers, a discriminator with its optimizer, and the weights of teachers and assistants. It may get more epochs and
    other processes of its loader. Of a function that a configuration holds, as
    ``$lambda logits, label: @dice(logits, label) + 0.5 * @focal(logits, label)``, the numbers
    in it and what it refers to are compared; of others, and of schedules, nothing.

    Args:
        trainer: a MONAI trainer.
        handlers: its handlers.

    Returns:
        values by names that a person understands; long ones as a checksum.
    """
    (network, optimizer), loader = trained(trainer), trainer.data_loader
    network, distillation = unwrap(network), teaching(handlers)
    losses = {"loss": getattr(trainer, "loss_function", None)}
    if isinstance(trainer, AdversarialTrainer):
        losses = {"loss": trainer.state.recon_loss_function}
        losses |= {"g loss": trainer.state.g_loss_function, "d loss": trainer.state.d_loss_function}
    losses |= {name: loss for each in distillation for name, loss in each.losses.items()}
    discriminators = list(_discriminators(trainer, distillation))
    scales = [scale for handler in handlers if isinstance(handler, MultiScaleHandler) for scale in handler.scales]
    teachers = list(_teachers(handlers))
    return {
        "network": type(network).__name__,
        "parameters": size(network),
        "training data": f"{content(loader.dataset)}, checksum of their names "
        f"{_checksum('|'.join(sorted(case_names(loader.dataset))))}",
        "transforms": f"checksum {_checksum(repr(_describe(getattr(loader.dataset, 'transform', None))))}",
        "batch size": loader.batch_size,
        "gradient accumulation": _above_one(getattr(trainer, "accumulation_steps", 1)),
        "processes": _above_one(get_world_size()),
        "iterations an epoch": trainer.state.epoch_length,
        "scales": ", ".join(f"{scale:g}" for scale in scales) or None,
        "learning rate": optimizer.defaults.get("lr"),
        "optimizer": type(optimizer).__name__ + _hyper(optimizer),
        "discriminator": "; ".join(f"checksum {_checksum(repr(unwrap(network)))}" for network, _ in discriminators)
        or None,
        "discriminator's optimizer": "; ".join(
            f"{type(each).__name__}, lr {each.defaults.get('lr')}{_hyper(each)}" for _, each in discriminators
        )
        or None,
        "seed": next((handler.seed for handler in handlers if isinstance(handler, EpochSeedHandler)), None),
        "objective": "; ".join(f"{each.supervised_weight:g} supervised, {each.summary()}" for each in distillation),
        "layers": "; ".join(filter(None, map(_layers, distillation))) or None,
        "corrections": "; ".join(describe_chain(chain) for chain in _chains(handlers)) or None,
        "queues of false pixels": "; ".join(
            f"{each.length} pixels, {each.draw} of a batch" for each in handlers if isinstance(each, FalsePixelHandler)
        )
        or None,
        "weights of who teaches": f"checksum {_weights(teachers)}" if teachers else None,
        **{f"{name} {key}": value for name, loss in losses.items() for key, value in _options(loss).items()},
    }


def _above_one(count: int) -> int | None:
    return count if count > 1 else None


def trained(trainer: Any) -> tuple[nn.Module, Any]:
    """The network that is trained and its optimizer; of an ``AdversarialTrainer`` the generator."""
    if isinstance(trainer, AdversarialTrainer):
        return trainer.state.g_network, trainer.state.g_optimizer
    return trainer.network, trainer.optimizer


def teaching(handlers: Sequence[Any]) -> list[Distilling]:
    """The handlers that distil."""
    return [handler for handler in handlers if isinstance(handler, Distilling)]


def _discriminators(trainer: Any, handlers: Iterable[Any]) -> Iterable[tuple[nn.Module, Any]]:
    """Networks that tell teacher and student, or real and made, apart, with their optimizers."""
    if isinstance(trainer, AdversarialTrainer):
        yield trainer.state.d_network, trainer.state.d_optimizer
    for handler in handlers:
        if isinstance(handler, AdversarialDistillationHandler):
            yield handler.discriminator, handler.optimizer


def _chains(handlers: Sequence[Any]) -> list[CorrectionChain]:
    """The corrections of soft labels."""
    teachers = [each.teacher for each in teaching(handlers)]
    of_teachers = [teacher.chain for teacher in teachers if isinstance(teacher, CorrectedTeacher)]
    return of_teachers + [each.chain for each in handlers if isinstance(each, SoftLabelCorrectionHandler)]


def _teachers(handlers: Sequence[Any]) -> Iterable[Teacher]:
    """Teachers and assistants, each member of a team."""
    heard: list[Any] = [each.teacher for each in handlers if isinstance(each, (Distilling, FalsePixelHandler))]
    heard = [each.teacher if isinstance(each, CorrectedTeacher) else each for each in heard]
    for chain in _chains(handlers):
        heard += chain.assistants.values()
    for each in heard:
        yield from each.members.values() or [each]


def _weights(teachers: Iterable[Teacher]) -> str:
    checksum = 0
    for teacher in teachers:
        if teacher.outputs in ("softmax", "sigmoid"):  # the same weights say something else
            checksum = crc32(teacher.outputs.encode(), checksum)
        checksum = weights_checksum(teacher.network, checksum)
    return f"{checksum:08x}"


def _layers(handler: Distilling) -> str:
    own, taught = handler.layers
    of_teacher = ", ".join(layer for each in taught.values() for layer in each)
    return f"{', '.join(own)} of the student, {of_teacher} of the teacher" if own or of_teacher else ""


def _hyper(optimizer: Any) -> str:
    speed = ("lr", "fused", "foreach", "capturable", "differentiable")  # the same result, or said elsewhere
    return "".join(f", {key} {value}" for key, value in sorted(optimizer.defaults.items()) if key not in speed)


def _checksum(text: str) -> str:
    return f"{crc32(text.encode()):08x}"


def _options(loss: Any, prefix: str = "") -> dict[str, str | int | float]:
    """Numbers and names that a loss, and the losses that it is made of, were built with."""
    if isinstance(loss, FunctionType):
        return _of_function(loss, prefix)
    found: dict[str, str | int | float] = {}
    for key, value in getattr(loss, "__dict__", {}).items():
        name = prefix + key.lstrip("_")
        if isinstance(value, str):
            found[name] = str(value)  # MONAI's enums are texts that need code
        elif isinstance(value, (int, float)) and key != "training":
            found[name] = value
        elif isinstance(value, nn.Module):
            found |= _options(value, f"{name} ")
    for key, part in loss.named_children() if isinstance(loss, nn.Module) else ():
        found |= _options(part, f"{prefix}{key} ")
    return found


def _of_function(function: FunctionType, prefix: str) -> dict[str, str | int | float]:
    """The numbers in a function of a configuration, and of what it refers to there."""
    constants, references = function.__code__.co_consts, function.__globals__.get("__local_refs", {})
    numbers = [each for each in constants if isinstance(each, (int, float)) and not isinstance(each, bool)]
    found: dict[str, str | int | float] = {f"{prefix}numbers": ", ".join(map(str, numbers))} if numbers else {}
    for name in (each for each in constants if isinstance(each, str) and each in references):
        value = references[name]
        if isinstance(value, (int, float)):
            found[prefix + name] = value
        elif value is not function:
            found |= _options(value, f"{prefix}{name} ")
    return found


def _describe(transform: Any, depth: int = 4) -> Any:
    """Class and options of a transform and of those that it is made of; nothing that is drawn, and no path."""
    if isinstance(transform, PLAIN):
        return "" if any(mark in str(transform) for mark in ("/", os.sep)) else str(transform)
    if isinstance(transform, Mapping):
        return {str(key): _describe(value, depth - 1) for key, value in transform.items()} if depth else ""
    if isinstance(transform, (list, tuple)):
        return [_describe(value, depth) for value in transform]
    if depth == 0 or not type(transform).__module__.startswith(("monai.transforms", "monai_kd.transforms")):
        return type(transform).__name__
    options = {key: value for key, value in vars(transform).items() if not key.startswith("_") and key != "R"}
    return type(transform).__name__, _describe(options, depth)


def size(network: nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in network.parameters())


def _items(dataset: Any) -> list[Any]:
    return list(getattr(dataset, "data", None) or [])


def content(dataset: Any) -> str:
    """How many of what a dataset holds."""
    number = len(case_names(dataset))
    count = f"{number} case{'s' if number > 1 else ''}"
    if number == 0:
        return f"{len(dataset)} items"
    if len(dataset) == number:
        return count
    return f"{len(dataset)} {'slices' if 'slice' in _items(dataset)[0] else 'items'} of {count}"
