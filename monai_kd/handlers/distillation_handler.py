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

"""Distillation in any MONAI trainer: the one handler to attach."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from torch import nn

from monai_kd.handlers._image_guard import ImageGuard
from monai_kd.handlers._numbers import as_number
from monai_kd.handlers._start_checks import (
    by_name,
    check_engine,
    check_names,
    check_ranks,
    check_supervised_weights,
    check_teacher,
    check_unused_parameters,
    check_weights,
    several_ranks,
)
from monai_kd.handlers.distillation_monitor import DistillationMonitor
from monai_kd.handlers.distillation_term import DistillationTerm
from monai_kd.networks import FeatureCapture, Knowledge, Teacher, TeacherTeam
from monai_kd.networks.feature_capture import forget_compiled
from monai_kd.networks.teacher import as_outputs, plain


class DistillationHandler:
    """
    Adds distillation terms to the loss of a MONAI trainer, which stays as it is:

    .. math:: L = w_{supervised} L_{supervised} + \\sum_k w_k \\, L_k(student, teacher, label).

    After the student's forward pass the teacher sees the same image; after the supervised loss the terms are added,
    before the backward pass. Mixed precision, gradient accumulation, compilation, distributed training and resuming
    are the trainer's own and go on working. Put it first in the trainer's list of handlers, on every rank. A trainer
    may have several with terms of different names, and several may share a teacher.

    Adapters join the trainer's optimizer when training starts, unless they are in it already: in double precision for
    a student that has weights in it, else in single. To resume exactly, save the handler with the student,
    ``CheckpointSaver(save_dict={"network": ..., "optimizer": ..., "trainer": ..., "distillation": handler})``, and
    attach ``CheckpointLoader`` after it. The teacher is never saved.

    Args:
        teacher: a :py:class:`~monai_kd.networks.Teacher` or :py:class:`~monai_kd.networks.TeacherTeam`.
        terms: the terms to add; two of one name are numbered.
        supervised_weight: what the trainer's own loss is multiplied with, >= 0.
        student: the network whose layers the terms name; the trainer's ``network`` where None.
        monitor_interval: iterations from one measurement of the terms' gradients to the next, 0 for none; see
            :py:class:`~monai_kd.handlers.distillation_monitor.DistillationMonitor`.
        drown_ratio: a term whose gradient is this many times the supervised loss's is warned of.

    Raises:
        TypeError: when ``teacher`` or a term is of another type.
        ValueError: when an argument is out of range, the trainer does not fire the events, or (as training starts)
            a layer is unknown, teacher and student share weights, another handler has a term of the same name, or the
            handler is missing on another rank, or (as it runs) the student writes into its image.

    Each iteration puts ``loss_supervised``, and for each term ``loss_<name>`` and ``loss_<name>_weighted``, into
    ``engine.state.output`` as scalars; :py:func:`~monai_kd.handlers.loss_terms` brings them to MONAI's loggers.

    Example::

        >>> import torch
        >>> from monai_kd.losses import KDLoss
        >>> teacher = Teacher(torch.nn.Conv2d(1, 2, 1))
        >>> handler = DistillationHandler(teacher, [DistillationTerm(KDLoss(), weight=0.5)])
    """

    rank_timeout = timedelta(minutes=5)

    def __init__(
        self,
        teacher: Teacher | TeacherTeam,
        terms: Sequence[DistillationTerm],
        supervised_weight: float = 1.0,
        student: nn.Module | None = None,
        monitor_interval: int = 50,
        drown_ratio: float = 2.0,
    ) -> None:
        check_teacher(teacher)
        self.teacher = teacher
        self.terms = by_name(terms, teacher)
        self.supervised_weight = as_number("`supervised_weight`", supervised_weight)
        self.student = student
        self.adapters = nn.ModuleDict({name: term.adapters for name, term in self.terms.items() if term.adapters})
        self.monitor = DistillationMonitor(monitor_interval, drown_ratio)
        self.knowledge: Knowledge | None = None
        self._capture: FeatureCapture | None = None
        self._teacher_captures: list[FeatureCapture] = []
        self._image_guard: ImageGuard | None = None
        self._added_at = -1
        self._refusal = ""

    # what attaches to the trainer

    def attach(self, engine: Engine) -> None:
        """Register with a trainer. Attaching twice changes nothing."""
        if engine.has_event_handler(self._start):
            return
        self._refusal = check_engine(engine)
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_STARTED, self._arm)
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self._ask_teacher)
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self._add_terms)
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self._synchronise)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._check_fired)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._end_epoch)
        engine.add_event_handler(Events.COMPLETED, self._finish)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._abort)

    def _start(self, engine: Any) -> None:
        self._finish(engine)
        self._added_at = -1
        self.monitor.start()
        owners = self._owners(engine, Events.STARTED)
        others = [each for each in owners if isinstance(each, DistillationHandler) and each is not self]
        check_names(self.terms, [other.terms for other in others])
        check_supervised_weights([self.supervised_weight, *(other.supervised_weight for other in others)])
        check_ranks(self.terms, self.rank_timeout)
        student = engine.network if self.student is None else self.student
        self.teacher.to(engine.state.device)
        # the precision in which a term is computed
        double = any(parameter.dtype == torch.float64 for parameter in student.parameters())
        self.adapters.to(engine.state.device, torch.float64 if double else torch.float32)
        check_weights(self.teacher, student, engine.optimizer)
        self._register_adapters(engine.optimizer)
        self._listen(engine.network, student)

    def _arm(self, engine: Any) -> None:
        if self._capture is not None:
            self._capture.enabled = True
        if self._image_guard is not None:
            self._image_guard.arm()

    def _ask_teacher(self, engine: Any) -> None:
        output, batch = engine.state.output, engine.state.batch
        if self._capture is not None:
            self._capture.enabled = False  # the loss may call the student again
        if self._image_guard is not None:
            self._image_guard.check(output["image"])
        self.knowledge = self.teacher(
            {key: output[key] if key == "image" else self._entry(engine, batch, key) for key in self.teacher.image_keys}
        )

    def _add_terms(self, engine: Any) -> None:
        output, teacher = engine.state.output, self.knowledge
        if teacher is None:
            raise ValueError(self._refusal)
        pred, features = output["pred"], {} if self._capture is None else self._capture.features
        student = Knowledge(as_outputs(pred, output["image"]), features)
        label = plain(output["label"]) if isinstance(output.get("label"), torch.Tensor) else None
        own = self._trainers_loss(engine.state)  # another handler may have added its terms
        supervised = own if self.supervised_weight == 1 else self.supervised_weight * own
        weighted = {}
        epochs_done = self._epochs_done(engine.state)
        for name, term in self.terms.items():
            term.set_temperature(epochs_done)
            weight = term.weight_at(epochs_done)
            value = self._value(name, weight, student, teacher, label)
            weighted[name] = weight * value
            output[f"loss_{name}"], output[f"loss_{name}_weighted"] = value.detach(), weighted[name].detach()
        self._check_finite(engine.state, student, teacher)
        output.setdefault("loss_supervised", output["loss"].detach())
        if self.monitor.due(engine.state.iteration):
            reference = supervised if self.supervised_weight > 0 else None
            # of stacked outputs the whole: the supervised loss has not seen the slices taken here
            anchors = Knowledge([pred] if isinstance(pred, torch.Tensor) else student.outputs, features)
            ratios = self.monitor.ratios(self.terms, weighted, reference, anchors)
            output.update({f"gradient_ratio_{name}": ratio for name, ratio in ratios.items()})
        self.monitor.see(student.logits.detach(), label, teacher.logits)
        if output["loss"] is own:
            output["loss"] = supervised
        elif self.supervised_weight != 1:
            output["loss"] = output["loss"] + (self.supervised_weight - 1) * own
        output["loss"] = sum(weighted.values(), output["loss"])
        self._added_at = engine.state.iteration
        self._forget()

    def _synchronise(self, engine: Any) -> None:
        """The mean of the adapters' gradients over the ranks, as DDP does for the student."""
        if not several_ranks():
            return
        epochs_done = self._epochs_done(engine.state)
        counted = [term.adapters for term in self.terms.values() if term.weight_at(epochs_done) > 0]
        for parameter in nn.ModuleList(counted).parameters():
            if parameter.grad is None:  # on this rank alone, perhaps: all must take part
                parameter.grad = torch.zeros_like(parameter)
            dist.all_reduce(parameter.grad)
            parameter.grad /= dist.get_world_size()

    @staticmethod
    def _trainers_loss(state: Any) -> torch.Tensor:
        """The loss of the iteration before any handler touched it."""
        if getattr(state, "trainers_loss", (-1,))[0] != state.iteration:
            state.trainers_loss = (state.iteration, state.output["loss"])
        return state.trainers_loss[1]

    def _check_fired(self, engine: Any) -> None:
        engine.state.trainers_loss = (-1,)  # its graph goes with the iteration
        if self._added_at != engine.state.iteration:
            raise ValueError(self._refusal)

    def _end_epoch(self, engine: Any) -> None:
        epochs_done = self._epochs_done(engine.state)
        counted = {name: term for name, term in self.terms.items() if term.weight_at(epochs_done) > 0}
        self.monitor.end_epoch(engine.state.epoch, counted)

    def _finish(self, engine: Any) -> None:
        self._forget()
        own = [] if self._capture is None else [self._capture]
        for capture in [*own, *self._teacher_captures]:
            capture.remove()
        if self._image_guard is not None:
            self._image_guard.remove()
        self._capture, self._teacher_captures, self._image_guard = None, [], None

    def _abort(self, engine: Any, error: BaseException) -> None:
        self._finish(engine)
        owners = self._owners(engine, Events.EXCEPTION_RAISED)
        if owners[-1] is self and all(isinstance(owner, DistillationHandler) for owner in owners):
            raise error  # ignite takes an exception that has a handler for handled; other handlers decide themselves

    @staticmethod
    def _owners(engine: Any, event: Events) -> list[Any]:
        return [getattr(handler[0], "__self__", None) for handler in engine._event_handlers[event]]

    # the steps of a step

    @staticmethod
    def _entry(engine: Any, batch: Any, key: str) -> torch.Tensor:
        if not isinstance(batch, Mapping) or key not in batch:
            keys = sorted(map(str, batch)) if isinstance(batch, Mapping) else type(batch).__name__
            raise ValueError(f"`image_key` of the teacher must be an entry of the batch, but got `{key}` of {keys}.")
        return batch[key].to(engine.state.device, non_blocking=engine.non_blocking)

    @staticmethod
    def _epochs_done(state: Any) -> float:
        return (state.iteration - 1) / state.epoch_length if state.epoch_length else state.epoch - 1.0

    def _value(
        self, name: str, weight: float, student: Knowledge, teacher: Knowledge, label: torch.Tensor | None
    ) -> torch.Tensor:
        try:
            with torch.set_grad_enabled(weight > 0):
                return self.terms[name](student, teacher, label)
        except (RuntimeError, TypeError, ValueError) as error:
            if type(error) not in (RuntimeError, TypeError, ValueError):  # others may be built of more than a message
                raise
            raise type(error)(f"term `{name}`: {error}") from error

    def _check_finite(self, state: Any, student: Knowledge, teacher: Knowledge) -> None:
        if not self.terms:
            return
        values = torch.stack([state.output[f"loss_{name}"].float() for name in self.terms])
        if torch.isfinite(values).all():
            return
        bad = [f"`{name}` = {value}" for name, value in zip(self.terms, values.tolist()) if not math.isfinite(value)]
        logits = {"the student": student.logits, "the teacher": teacher.logits}
        who = [who for who, tensor in logits.items() if not torch.isfinite(tensor).all()]
        raise ValueError(
            f"term {', '.join(bad)} must be finite (epoch {state.epoch}, iteration {state.iteration}); "
            f"not finite before it: {' and '.join(who) or 'none of the logits'}."
        )

    def _forget(self) -> None:
        self.knowledge = None
        if self._capture is not None:
            self._capture.enabled = False
            self._capture.clear()

    # what is set up as training starts

    def _register_adapters(self, optimizer: torch.optim.Optimizer) -> None:
        known = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        missing = [parameter for parameter in self.adapters.parameters() if id(parameter) not in known]
        # a group of their own would break a scheduler made before; the fastest, since the others may fine-tune
        max(optimizer.param_groups, key=lambda group: float(group.get("lr", 0.0)))["params"].extend(missing)
        if dist.is_available() and dist.is_initialized():
            for parameter in self.adapters.parameters():
                dist.broadcast(parameter.data, src=0)

    def _listen(self, network: nn.Module, student: nn.Module) -> None:
        if "image" in self.teacher.image_keys:
            self._image_guard = ImageGuard(network)
        for member in {term.teacher for term in self.terms.values()}:
            layers = [layer for term in self.terms.values() if term.teacher == member for layer in term.teacher_layers]
            if layers:
                self._teacher_captures.append(self.teacher.capture(layers, member))
        layers = [layer for term in self.terms.values() for layer in term.student_layers]
        if layers:
            check_unused_parameters(network)
            self._capture = FeatureCapture(student, layers)
            self._capture.enabled = False
            forget_compiled(network)  # which may wrap the student that was given

    # what an optimizer and a checkpoint need

    def parameters(self) -> Iterator[nn.Parameter]:
        """The trainable weights of the adapters, for an optimizer that is built with them."""
        return self.adapters.parameters()

    def state_dict(self) -> dict[str, Any]:
        """The adapters' weights. Schedules need no state: they follow the trainer's iteration."""
        return {"adapters": self.adapters.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what :py:meth:`state_dict` gave."""
        self.adapters.load_state_dict(state_dict["adapters"])
