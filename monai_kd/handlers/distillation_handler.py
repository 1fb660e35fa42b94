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

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from ignite.engine import Engine, Events
from torch import nn

from monai_kd.handlers._finite_check import check_finite
from monai_kd.handlers._numbers import as_number
from monai_kd.handlers._overlap import with_background
from monai_kd.handlers._start_checks import by_name, check_loaders, check_supervised_weights, several_ranks
from monai_kd.handlers._teaching_handler import TeachingHandler, broadcast, mean_gradients
from monai_kd.handlers.distillation_monitor import DistillationMonitor
from monai_kd.handlers.distillation_term import DistillationTerm, Schedule
from monai_kd.networks import Knowledge, Teacher, TeacherTeam
from monai_kd.networks.errors_of import errors_of
from monai_kd.networks.teacher import plain


class DistillationHandler(TeachingHandler):
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
        ValueError: when an argument is out of range, the trainer does not fire the events, a ``CheckpointLoader`` of
            the optimizer was attached before (and the adapters are not in the optimizer yet), or (as training starts)
            a layer is unknown, teacher and student share weights or buffers, another handler has a term of the same
            name, or the handler is missing on another rank, or (as it runs) the student writes into its image, or a
            term or the trainer's own loss is not finite: before the backward pass, so that the weights stay.

    Each iteration puts ``loss_supervised``, and for each term ``loss_<name>`` and ``loss_<name>_weighted``, into
    ``engine.state.output`` as scalars; :py:func:`~monai_kd.handlers.loss_terms` brings them to MONAI's loggers.

    Example::

        >>> import torch
        >>> from monai_kd.losses import KDLoss
        >>> teacher = Teacher(torch.nn.Conv2d(1, 2, 1))
        >>> handler = DistillationHandler(teacher, [DistillationTerm(KDLoss(), weight=0.5)])
    """

    def __init__(
        self,
        teacher: Teacher | TeacherTeam,
        terms: Sequence[DistillationTerm],
        supervised_weight: float = 1.0,
        student: nn.Module | None = None,
        monitor_interval: int = 50,
        drown_ratio: float = 2.0,
    ) -> None:
        super().__init__(teacher, student)
        self.terms = by_name(terms, teacher)
        self.supervised_weight = as_number("`supervised_weight`", supervised_weight)
        self.adapters = nn.ModuleDict({name: term.adapters for name, term in self.terms.items() if term.adapters})
        self.monitor = DistillationMonitor(monitor_interval, drown_ratio)
        self._overlapping = any(term.activation == "sigmoid" for term in self.terms.values())

    @property
    def weights(self) -> dict[str, Schedule]:
        """The weight of each term."""
        return {name: term.weight for name, term in self.terms.items()}

    @property
    def losses(self) -> dict[str, Any]:
        """The loss of each term."""
        return {name: term.loss for name, term in self.terms.items()}

    @property
    def layers(self) -> tuple[list[str], dict[str | None, list[str]]]:
        """The layers of the student and of the teacher that the terms compare."""
        taught: dict[str | None, list[str]] = {}
        for term in self.terms.values():
            taught.setdefault(term.teacher, []).extend(term.teacher_layers)
        return [layer for term in self.terms.values() for layer in term.student_layers], taught

    @property
    def reads_logits(self) -> bool:
        """Whether a term compares logits."""
        return any(not term.student_layers for term in self.terms.values())

    def attach(self, engine: Engine) -> None:
        """Register with a trainer. Attaching twice changes nothing."""
        super().attach(engine)
        if not engine.has_event_handler(self._end_epoch):
            check_loaders(engine, self.adapters.parameters())
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._end_epoch)

    def _start(self, engine: Any) -> None:
        others = [other for other in self._others(engine) if isinstance(other, DistillationHandler)]
        check_supervised_weights([self.supervised_weight, *(other.supervised_weight for other in others)])
        student = self._begin(engine)
        self.monitor.start()
        # the precision in which a term is computed
        double = any(parameter.dtype == torch.float64 for parameter in student.parameters())
        self.adapters.to(engine.state.device, torch.float64 if double else torch.float32)
        self._register_adapters(engine.optimizer)
        self._listen(engine, student)

    def _add_terms(self, engine: Any) -> None:
        output = engine.state.output
        student, teacher = self._heard(output)
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
        check_finite(list(self.terms), engine.state, student, teacher, own)
        output.setdefault("loss_supervised", output["loss"].detach())
        if self.monitor.due(engine.state.iteration):
            reference = supervised if self.supervised_weight > 0 else None
            # of stacked outputs the whole: the supervised loss has not seen the slices taken here
            pred = output["pred"]
            anchors = Knowledge([pred] if isinstance(pred, torch.Tensor) else student.outputs, student.features)
            ratios = self.monitor.ratios(self.terms, weighted, reference, anchors)
            output.update({f"gradient_ratio_{name}": ratio for name, ratio in ratios.items()})
        seen = student.logits.detach(), label, teacher.logits
        self.monitor.see(*with_background(*seen) if self._overlapping else seen)
        if output["loss"] is own:
            output["loss"] = supervised
        elif self.supervised_weight != 1:
            output["loss"] = output["loss"] + (self.supervised_weight - 1) * own
        output["loss"] = sum(weighted.values(), output["loss"])
        self._added_at = engine.state.iteration
        self._forget()

    def _after_backward(self, engine: Any) -> None:
        """The adapters learn as the student does, whose gradients DDP averages."""
        if not several_ranks():
            return
        epochs_done = self._epochs_done(engine.state)
        counted = [term.adapters for term in self.terms.values() if term.weight_at(epochs_done) > 0]
        mean_gradients(nn.ModuleList(counted).parameters())

    def _end_epoch(self, engine: Any) -> None:
        epochs_done = self._epochs_done(engine.state)
        counted = {name: term for name, term in self.terms.items() if term.weight_at(epochs_done) > 0}
        self.monitor.end_epoch(engine.state.epoch, counted)

    def _value(
        self, name: str, weight: float, student: Knowledge, teacher: Knowledge, label: torch.Tensor | None
    ) -> torch.Tensor:
        with errors_of(f"term `{name}`"), torch.set_grad_enabled(weight > 0):
            return self.terms[name](student, teacher, label)

    def _register_adapters(self, optimizer: torch.optim.Optimizer) -> None:
        known = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        missing = [parameter for parameter in self.adapters.parameters() if id(parameter) not in known]
        # a group of their own would break a scheduler made before; the fastest, since the others may fine-tune
        max(optimizer.param_groups, key=lambda group: float(group.get("lr", 0.0)))["params"].extend(missing)
        broadcast(self.adapters.parameters())

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
