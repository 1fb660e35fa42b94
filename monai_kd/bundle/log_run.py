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
from collections.abc import Sequence, Sized
from typing import Any

from ignite.distributed import get_rank
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from monai.handlers import ValidationHandler
from torch import nn

from monai_kd.bundle.check_finite import check_finite
from monai_kd.bundle.check_overrides import running_configuration
from monai_kd.bundle.claim_checkpoints import claim_checkpoints
from monai_kd.bundle.prepare_console import tell_how_to_resume
from monai_kd.bundle.run_identity import run_identity
from monai_kd.bundle.trainer_parts import Distilling, content, size, teaching, trained
from monai_kd.data.case_name import case_names
from monai_kd.data.quiet_workers import quiet_workers
from monai_kd.handlers import FiniteLossHandler
from monai_kd.networks import FeatureCapture
from monai_kd.networks.feature_capture import unwrap

logger = logging.getLogger("monai_kd")


def log_run(trainer: Any, evaluator: Any, handlers: Sequence[Any], checkpoint: str | os.PathLike) -> None:
    """
    Log what is trained, on what, with which terms and where it goes, on the first rank; refuse a run that would leave
    nothing behind; keep its checkpoints apart from those of other runs (:py:func:`claim_checkpoints`); and stop a
    training without distillation whose loss is not finite (:py:class:`~monai_kd.handlers.FiniteLossHandler`). An epoch
    after which the weights are not finite ends the training too.

    Args:
        trainer: a MONAI trainer.
        evaluator: the MONAI evaluator that validates it.
        handlers: the trainer's handlers.
        checkpoint: file of the best weights.

    Raises:
        ValueError: when the dataset does not fill one batch (MONAI would skip the training), `epoch_length` or
            `max_epochs` is no whole number above 0, no epoch
            is validated, so that no weights would be saved, a term names a layer that a network does not have, or (as
            training starts) another process trains to the same file.

    Example, in a bundle's ``initialize``::

        - "$monai_kd.bundle.log_run(@train::trainer, @validate::evaluator, @train::handlers, @ckpt_path)"
    """
    loader, state = trainer.data_loader, trainer.state
    _check_length(loader, state)
    for handler in handlers:
        if isinstance(handler, ValidationHandler) and handler.epoch_level and handler.interval > state.max_epochs:
            raise ValueError(
                f"`val_interval` must not exceed `max_epochs`, but got {handler.interval} and {state.max_epochs}; "
                "no epoch would be validated and no weights saved."
            )
    distillation = teaching(handlers)
    for handler in distillation:
        _check_layers(handler, trained(trainer)[0])
    if not distillation and isinstance(trainer, SupervisedTrainer):
        FiniteLossHandler().attach(trainer)
    network = unwrap(trained(trainer)[0])
    trainer.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: check_finite({"network": network}))
    claim_checkpoints(trainer, checkpoint, run_identity(trainer, handlers, running_configuration()))
    tell_how_to_resume(trainer, checkpoint)
    for each in (loader, evaluator.data_loader):
        quiet_workers(each)
    if get_rank() > 0:
        return
    logger.info(
        f"training {type(network).__name__} ({size(network):,} parameters) to {checkpoint}: {state.max_epochs} epochs "
        f"of {state.epoch_length} iterations of {loader.batch_size}"
    )
    logger.info(f"on {content(loader.dataset)}, validated on {content(evaluator.data_loader.dataset)}")
    if not distillation:  # a handler says itself what it distils from
        logger.info("without distillation")
    both = sorted(case_names(loader.dataset) & case_names(evaluator.data_loader.dataset))
    if both:
        logger.warning(f"{', '.join(both)}: both trained and validated on, scores will be too good")


def _check_length(loader: Any, state: Any) -> None:
    """MONAI skips a training without iterations with a warning, or none."""
    empty = isinstance(loader, Sized) and len(loader) == 0
    if empty or state.epoch_length == 0:
        raise ValueError(
            f"`batch_size` must not exceed the size of the training dataset, but got {loader.batch_size} and "
            f"{len(loader.dataset)}; only full batches are trained on."
        )
    for name, number in (("epoch_length", state.epoch_length), ("max_epochs", state.max_epochs)):
        if not isinstance(number, int) or number < 1:
            raise ValueError(f"`{name}` must be a whole number >= 1, but got {number!r}.")


def _check_layers(handler: Distilling, student: nn.Module) -> None:
    """Before anything is written; the handler itself looks when training starts."""
    own, taught = handler.layers
    if own:
        FeatureCapture(handler.student or student, own).remove()
    for member, layers in taught.items():
        teacher: Any = handler.teacher.members.get(member or "", handler.teacher)
        network = getattr(teacher, "network", None)
        if layers and network is not None:
            FeatureCapture(network, layers).remove()
