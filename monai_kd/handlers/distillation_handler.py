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

import logging
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from torch import nn

from monai_kd.handlers._finite_check import check_finite
from monai_kd.handlers._gradient_balancer import GradientBalancer, LearningGuard, over_ranks
from monai_kd.handlers._numbers import as_number
from monai_kd.handlers._overlap import with_background
from monai_kd.handlers._start_checks import by_name, check_loaders, check_supervised_weights, several_ranks
from monai_kd.handlers._teaching_handler import TeachingHandler, broadcast, mean_gradients, owners
from monai_kd.handlers._unlabelled_batches import UnlabelledBatches
from monai_kd.handlers.distillation_monitor import DistillationMonitor
from monai_kd.handlers.distillation_term import DistillationTerm, Weight
from monai_kd.networks import Knowledge, Teacher, TeacherTeam
from monai_kd.networks.errors_of import errors_of
from monai_kd.networks.feature_capture import is_compiled
from monai_kd.networks.teacher import plain

logger = logging.getLogger("monai_kd")


class LossWithLabels:
    """A trainer's loss that is 0 where the batch has no label."""

    def __init__(self, loss: Any) -> None:
        self.loss = loss

    def __call__(self, pred: Any, label: Any) -> torch.Tensor:
        """The loss of a batch."""
        if label is not None:
            return self.loss(pred, label)
        first = pred if isinstance(pred, torch.Tensor) else pred[0]
        return first.new_zeros(())


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

    **Images without labels.** With ``unlabelled`` each step also sees a batch that nobody labelled. Both batches go
    through the networks in one forward pass, so that batch normalization sees both. The terms compare student and
    teacher on all images; the trainer's loss sees the labelled ones alone. With ``supervised_weight=0`` the batches of
    the trainer need no label either: the teacher was trained on data that you do not have.

    Args:
        teacher: a :py:class:`~monai_kd.networks.Teacher` or :py:class:`~monai_kd.networks.TeacherTeam`.
        terms: the terms to add; two of one name are numbered.
        supervised_weight: what the trainer's own loss is multiplied with, >= 0. With 0 it is not computed where the
            batch has no label.
        student: the network whose layers the terms name; the trainer's ``network`` where None.
        monitor_interval: iterations from one measurement of the terms' gradients to the next, 0 for none; see
            :py:class:`~monai_kd.handlers.distillation_monitor.DistillationMonitor`.
        drown_ratio: a term whose gradient is this many times the supervised loss's is warned of.
        auto_share: the gradient of all terms with ``weight="auto"`` together, relative to the supervised loss's.
        unlabelled: loader of images without labels, with the transforms of the labelled ones; it may be shorter or
            longer than an epoch. Seed its data set in the ``EpochSeedHandler`` to resume exactly.
        pseudo_labels: terms that need a label get the teacher's most probable class on unlabelled images. Without
            this they are refused there.

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
        auto_share: float = 1.0,
        unlabelled: Iterable[Any] | None = None,
        pseudo_labels: bool = False,
    ) -> None:
        super().__init__(teacher, student)
        self.terms = by_name(terms, teacher)
        self.auto_share = as_number("`auto_share`", auto_share)
        self.balancer = GradientBalancer()
        self.guard = LearningGuard()
        keys = teacher.image_keys | {"image"}
        self.unlabelled = None if unlabelled is None else UnlabelledBatches(unlabelled, keys)
        self.pseudo_labels = pseudo_labels
        self._whole: Any = None  # predictions and images of labelled and unlabelled images
        self._eager = False
        self.supervised_weight = as_number("`supervised_weight`", supervised_weight)
        self.adapters = nn.ModuleDict({name: term.adapters for name, term in self.terms.items() if term.adapters})
        self.monitor = DistillationMonitor(monitor_interval, drown_ratio)
        self._overlapping = any(term.activation == "sigmoid" for term in self.terms.values())

    @property
    def weights(self) -> dict[str, Weight]:
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

    def summary(self) -> str:
        """From whom the student learns, by what, and on which images beside those with labels."""
        if self.unlabelled is None:
            return super().summary()
        number = len(getattr(self.unlabelled.loader, "dataset", self.unlabelled.loader))  # type: ignore[arg-type]
        return f"{super().summary()}, also on {number} images without labels"

    def attach(self, engine: Engine) -> None:
        """Register with a trainer. Attaching twice changes nothing."""
        super().attach(engine)
        if not engine.has_event_handler(self._end_epoch):
            check_loaders(engine, self.adapters.parameters())
            engine.add_event_handler(Events.EPOCH_COMPLETED, self._end_epoch)
            if self.unlabelled is not None:
                engine.add_event_handler(Events.EPOCH_STARTED, self.unlabelled.restart)

    def _start(self, engine: Any) -> None:
        others = [other for other in self._others(engine) if isinstance(other, DistillationHandler)]
        check_supervised_weights([self.supervised_weight, *(other.supervised_weight for other in others)])
        student = self._begin(engine)
        self._check_first(engine)
        self.monitor.start()
        if engine.state.iteration == 0:
            self.balancer, self.guard = GradientBalancer(), LearningGuard()
        if self.supervised_weight == 0:
            engine.loss_function = LossWithLabels(engine.loss_function)
        # the precision in which a term is computed
        double = any(parameter.dtype == torch.float64 for parameter in student.parameters())
        self.adapters.to(engine.state.device, torch.float64 if double else torch.float32)
        self._register_adapters(engine.optimizer)
        self._listen(engine, student)

    def _check_first(self, engine: Any) -> None:
        """Other handlers must not see images that are no longer in the batch when the loss is computed."""
        asking = owners(engine, IterationEvents.FORWARD_COMPLETED)
        teaching = [owner for owner in asking if isinstance(owner, TeachingHandler)]
        if self.unlabelled is not None and teaching[0] is not self:
            raise ValueError(
                "`DistillationHandler(unlabelled=...)` must be the first handler that distils, but got "
                f"{type(teaching[0]).__name__} with {teaching[0].names} before it; exchange them."
            )

    def _arm(self, engine: Any) -> None:
        super()._arm(engine)
        if self.unlabelled is not None:
            self.unlabelled.join(engine)
        if self.monitor.due(engine.state.iteration, bool(self._auto)) and self._hides_layers(engine):
            torch.compiler.set_stance("force_eager")
            self._eager = True

    def _hides_layers(self, engine: Any) -> bool:
        """Whether a weight needs gradients at inner layers of a compiled network, which only eager mode gives."""
        needed = any(self.terms[name].student_layers for name in self._auto)
        return needed and is_compiled(engine.network)

    def _ask_teacher(self, engine: Any) -> None:
        super()._ask_teacher(engine)
        if self.unlabelled is not None:
            self._whole = self.unlabelled.split(engine)

    def _heard(self, output: Any) -> tuple[Knowledge, Knowledge]:
        whole = output if self._whole is None else output | self._whole
        return super()._heard(whole)

    def _forget(self) -> None:
        super()._forget()
        self._whole = None
        if self._eager:
            torch.compiler.set_stance("default")
            self._eager = False

    def _finish(self, engine: Any) -> None:
        super()._finish(engine)
        if isinstance(engine.loss_function, LossWithLabels):
            engine.loss_function = engine.loss_function.loss

    def _add_terms(self, engine: Any) -> None:
        state, output = engine.state, engine.state.output
        student, teacher = self._heard(output)
        label = self._label(output, teacher)
        own = self._trainers_loss(state)  # another handler may have added its terms
        supervised = own if self.supervised_weight == 1 else self.supervised_weight * own
        epochs_done = self._epochs_done(state)
        asked = {name: term.weight_at(epochs_done) for name, term in self.terms.items()}
        values = {}
        for name, term in self.terms.items():
            term.set_temperature(epochs_done)
            values[name] = self._value(name, asked[name], student, teacher, label)
            output[f"loss_{name}"] = values[name].detach()
        check_finite(list(self.terms), state, student, teacher, own)
        due = self.monitor.due(state.iteration, bool(self._auto))
        norms = self._measure(state, values, supervised, student, asked) if due else {}
        weights = self._weights_at(asked)
        ratios = self.monitor.ratios(self.terms, norms, weights)
        weighted = {name: weights[name] * value for name, value in values.items()}
        output.setdefault("loss_supervised", output["loss"].detach())
        output.update({f"loss_{name}_weighted": value.detach() for name, value in weighted.items()})
        output.update({f"weight_{name}": weights[name] for name in self._auto})
        output.update({f"gradient_ratio_{name}": ratio for name, ratio in ratios.items()})
        true = output["label"] if isinstance(output.get("label"), torch.Tensor) else None
        seen = student.logits.detach(), true, teacher.logits
        self.monitor.see(*with_background(*seen) if self._overlapping else seen)
        if self._guarded:
            self.guard.see(output["loss_supervised"])
        if output["loss"] is own:
            output["loss"] = supervised
        elif self.supervised_weight != 1:
            output["loss"] = output["loss"] + (self.supervised_weight - 1) * own
        output["loss"] = sum(weighted.values(), output["loss"])
        self._added_at = state.iteration
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
        collapsed = self.monitor.end_epoch(engine.state.epoch, counted)
        if self._guarded:
            self._react(self.guard.why(collapsed))

    def _react(self, why: str) -> None:
        """Let the shares fall while the student does not learn, and rise again when it does."""
        before = self.balancer.damping
        self.balancer.damping = max(before / 2, 2**-10) if why else min(1.0, before * 2)
        if why:
            logger.warning(
                f"the student stops learning: {why}. The share of {', '.join(self._auto)} falls to "
                f"{self.balancer.damping:g} of what was asked for."
            )

    # weights that set themselves

    @property
    def _auto(self) -> list[str]:
        """The terms whose weights set themselves."""
        return [name for name, term in self.terms.items() if term.auto]

    @property
    def _guarded(self) -> bool:
        """Whether shares fall where the student stops learning from the labels."""
        return bool(self._auto) and self.supervised_weight > 0

    def _measure(
        self,
        state: Any,
        values: dict[str, torch.Tensor],
        supervised: torch.Tensor,
        student: Knowledge,
        asked: dict[str, float],
    ) -> dict[str, tuple[float, float | None]]:
        """The gradients of the terms and of the supervised loss, which the weights of auto terms follow."""
        # of stacked outputs the whole: the supervised loss has not seen the slices taken here
        pred = (state.output if self._whole is None else self._whole)["pred"]
        anchors = Knowledge([pred] if isinstance(pred, torch.Tensor) else student.outputs, student.features)
        reference = supervised if self.supervised_weight > 0 else None
        norms = self.monitor.norms(self.terms, values, reference, anchors, asked)
        if self._guarded:
            auto = {name: norms[name] for name in self._auto if name in norms}
            self.balancer.update(over_ranks(auto, self._auto))
        return norms

    def _weights_at(self, asked: dict[str, float]) -> dict[str, float]:
        """The weight of each term in this iteration, from the weights and shares that were asked for."""
        equal_part = self.auto_share / max(1, sum(term.weight == "auto" for term in self.terms.values()))
        weights = {}
        for name, term in self.terms.items():
            weight = asked[name]
            if term.weight == "auto":
                weight *= equal_part
            if term.auto:
                weight *= self.balancer.damping * self.balancer.scale(name)
            weights[name] = weight
        return weights

    def _label(self, output: Any, teacher: Knowledge) -> torch.Tensor | None:
        """What the terms get as the label."""
        label = plain(output["label"]) if isinstance(output.get("label"), torch.Tensor) else None
        if self.unlabelled is None:
            return label
        return self.unlabelled.label(label, teacher.logits) if self.pseudo_labels else None

    def _value(
        self, name: str, weight: float, student: Knowledge, teacher: Knowledge, label: torch.Tensor | None
    ) -> torch.Tensor:
        what = f"term `{name}`"
        if self.unlabelled is not None and not self.pseudo_labels:
            what += " on images without labels (`pseudo_labels=True` gives it the teacher's classes)"
        with errors_of(what), torch.set_grad_enabled(weight > 0):
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
        """
        The adapters' weights, and what is known of the gradients. Schedules need no state: they follow the trainer's
        iteration.
        """
        return {
            "adapters": self.adapters.state_dict(),
            "balancer": self.balancer.state_dict(),
            "guard": self.guard.state_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what :py:meth:`state_dict` gave."""
        self.adapters.load_state_dict(state_dict["adapters"])
        if "balancer" in state_dict:
            self.balancer.load_state_dict(state_dict["balancer"])
            self.guard.load_state_dict(state_dict["guard"])
