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

"""What a training is about to do, told before it starts."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from typing import Any
from zlib import crc32

from ignite.distributed import get_rank
from monai.engines import AdversarialTrainer
from monai.handlers import ValidationHandler
from torch import nn

from monai_kd.bundle.claim_checkpoints import claim_checkpoints
from monai_kd.handlers import EpochSeedHandler
from monai_kd.handlers._teaching_handler import TeachingHandler
from monai_kd.networks import FeatureCapture, Teacher
from monai_kd.networks.feature_capture import unwrap

logger = logging.getLogger("monai_kd")


def log_run(trainer: Any, evaluator: Any, handlers: Sequence[Any], checkpoint: str | os.PathLike) -> None:
    """
    Log what is trained, on what, with which terms and where it goes, on the first rank; refuse a run that would leave
    nothing behind; and keep its checkpoints apart from those of other runs (:py:func:`claim_checkpoints`).

    Args:
        trainer: a MONAI trainer.
        evaluator: the MONAI evaluator that validates it.
        handlers: the trainer's handlers.
        checkpoint: file of the best weights.

    Raises:
        ValueError: when the dataset does not fill one batch (MONAI would skip the training with a warning), no epoch
            is validated, so that no weights would be saved, a term names a layer that a network does not have, or (as
            training starts) another process trains to the same file.

    Example, in a bundle's ``initialize``::

        - "$monai_kd.bundle.log_run(@train::trainer, @validate::evaluator, @train::handlers, @ckpt_path)"
    """
    loader, state = trainer.data_loader, trainer.state
    if state.epoch_length == 0:
        raise ValueError(
            f"`batch_size` must not exceed the size of the training dataset, but got {loader.batch_size} and "
            f"{len(loader.dataset)}; only full batches are trained on."
        )
    for handler in handlers:
        if isinstance(handler, ValidationHandler) and handler.epoch_level and handler.interval > state.max_epochs:
            raise ValueError(
                f"`val_interval` must not exceed `max_epochs`, but got {handler.interval} and {state.max_epochs}; "
                "no epoch would be validated and no weights saved."
            )
    distillation = [handler for handler in handlers if isinstance(handler, TeachingHandler)]
    for handler in distillation:
        _check_layers(handler, _trained(trainer)[0])
    claim_checkpoints(trainer, checkpoint, _settings(trainer, handlers, distillation))
    if get_rank() > 0:
        return
    network = unwrap(_trained(trainer)[0])
    logger.info(
        f"training {type(network).__name__} ({_size(network):,} parameters) to {checkpoint}: {state.max_epochs} epochs "
        f"of {state.epoch_length} iterations of {loader.batch_size}"
    )
    logger.info(f"on {_content(loader.dataset)}, validated on {_content(evaluator.data_loader.dataset)}")
    logger.info("; ".join(handler.summary() for handler in distillation) or "without distillation")
    both = sorted(_cases(loader.dataset) & _cases(evaluator.data_loader.dataset))
    if both:
        logger.warning(f"{', '.join(both)}: both trained and validated on, scores will be too good")


def _trained(trainer: Any) -> tuple[nn.Module, Any]:
    """The network that is trained and its optimizer; of an ``AdversarialTrainer`` the generator."""
    if isinstance(trainer, AdversarialTrainer):
        return trainer.state.g_network, trainer.state.g_optimizer
    return trainer.network, trainer.optimizer


def _check_layers(handler: TeachingHandler, student: nn.Module) -> None:
    """Before anything is written; the handler itself looks when training starts."""
    own, taught = handler.layers
    if own:
        FeatureCapture(handler.student or student, own).remove()
    for member, layers in taught.items():
        teacher: Any = handler.teacher.members.get(member or "", handler.teacher)
        if layers and isinstance(teacher, Teacher):
            FeatureCapture(teacher.network, layers).remove()


def _settings(
    trainer: Any, handlers: Sequence[Any], distillation: Sequence[TeachingHandler]
) -> dict[str, str | int | float | None]:
    """What makes a run another one; it may get more epochs, and what cannot be compared (functions) is left out."""
    (network, optimizer), loader = _trained(trainer), trainer.data_loader
    network = unwrap(network)
    cases = crc32("|".join(sorted(_cases(loader.dataset))).encode())
    losses = [loss for each in distillation for loss in each.losses.items()]
    return {
        "network": type(network).__name__,
        "parameters": _size(network),
        "training data": f"{_content(loader.dataset)}, checksum of their names {cases:08x}",
        "batch size": loader.batch_size,
        "iterations an epoch": trainer.state.epoch_length,
        "learning rate": optimizer.defaults.get("lr"),
        "seed": next((handler.seed for handler in handlers if isinstance(handler, EpochSeedHandler)), None),
        "objective": "; ".join(f"{each.supervised_weight:g} supervised, {each.summary()}" for each in distillation),
        **{f"{name} {key}": value for name, loss in losses for key, value in _options(loss).items()},
    }


def _options(loss: Any) -> dict[str, str | int | float]:
    found = getattr(loss, "__dict__", {}).items()
    plain = [(k, str(v) if isinstance(v, str) else v) for k, v in found]  # MONAI's enums are texts that need code
    return {k.lstrip("_"): v for k, v in plain if isinstance(v, (str, int, float)) and k != "training"}


def _size(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _items(dataset: Any) -> list[Any]:
    return list(getattr(dataset, "data", None) or [])


def _cases(dataset: Any) -> set[str]:
    return {str(item["case"]) for item in _items(dataset) if isinstance(item, dict) and "case" in item}


def _content(dataset: Any) -> str:
    cases = _cases(dataset)
    count = f"{len(cases)} case{'s' if len(cases) > 1 else ''}"
    if not cases:
        return f"{len(dataset)} items"
    if len(dataset) == len(cases):
        return count
    return f"{len(dataset)} {'slices' if 'slice' in _items(dataset)[0] else 'items'} of {count}"
