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

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from torch import nn

from monai_kd.corrections import CorrectedTeacher
from monai_kd.handlers._finite_check import check_finite
from monai_kd.handlers._numbers import as_number
from monai_kd.handlers._ranks import broadcast, mean_gradients, several_ranks
from monai_kd.handlers._start_checks import (
    by_name,
    check_corrected,
    check_loaders,
    check_supervised_weights,
    check_teacher,
)
from monai_kd.handlers._step_recorder import StepRecorder
from monai_kd.handlers._teacher_student_pair import (
    RANK_TIMEOUT,
    AnyTeacher,
    Layers,
    TeacherStudentPair,
    epochs_done,
    pair_handlers,
    raise_again,
)
from monai_kd.handlers._term_weights import TermWeights
from monai_kd.handlers._unlabelled_batches import MIXED, MixedImages, UnlabelledBatches
from monai_kd.handlers.distillation_monitor import DistillationMonitor
from monai_kd.handlers.distillation_term import DistillationTerm, Weight
from monai_kd.networks import Knowledge
from monai_kd.networks.errors_of import errors_of
from monai_kd.networks.feature_capture import is_compiled
from monai_kd.networks.teacher import plain

AUTO_SHARES = (1.0, 3.0)  # without and with unlabelled images, by docs/results/gains.md


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

    **Images without labels.** With ``unlabelled`` each step also sees a batch that nobody labelled. Both batches go
    through the networks in one forward pass, so that batch normalization sees both. The terms compare student and
    teacher on all images; the trainer's loss sees the labelled ones alone. With ``supervised_weight=0`` the batches of
    the trainer need no label either: the teacher was trained on data that you do not have.

    Args:
        teacher: a :py:class:`~monai_kd.networks.Teacher`, :py:class:`~monai_kd.networks.TeacherTeam` or
            :py:class:`~monai_kd.corrections.CorrectedTeacher`.
        terms: the terms to add; two of one name are numbered.
        supervised_weight: what the trainer's own loss is multiplied with, >= 0. With 0 it is not computed where the
            batch has no label.
        student: the network whose layers the terms name; the trainer's ``network`` where None.
        monitor_interval: iterations from one measurement of the terms' gradients to the next, 0 for none; see
            :py:class:`~monai_kd.handlers.distillation_monitor.DistillationMonitor`.
        drown_ratio: a term whose gradient is this many times the supervised loss's is warned of.
        auto_share: the gradient of all terms with ``weight="auto"`` together, relative to the supervised loss's. By
            default 1, and 3 with ``unlabelled``: there the terms are all that the student has of these images.
        unlabelled: loader of images without labels, with the transforms of the labelled ones; it may be shorter or
            longer than an epoch. Seed its data set in the ``EpochSeedHandler`` to resume exactly. Where all images
            have labels, ``"mixed"`` blends the images of each batch: on them the teacher does not repeat the labels.
        pseudo_labels: terms that need a label get the teacher's most probable class on unlabelled images. Without
            this they are refused there.

    Raises:
        TypeError: when ``teacher`` or a term is of another type.
        ValueError: when an argument is out of range, the trainer does not fire the events, a ``CheckpointLoader`` of
            the optimizer was attached before (and the adapters are not in the optimizer yet), or (as training starts)
            a layer is unknown, teacher or assistants share weights or buffers with the student, another handler has a
            term of the same name, or the handler is missing on another rank, or (as it runs) the student writes into
            its image, or a term or the trainer's own loss is not finite: before the backward pass, so that the weights
            stay.

    Each iteration puts ``loss_supervised``, and for each term ``loss_<name>`` and ``loss_<name>_weighted``, into
    ``engine.state.output`` as scalars; :py:func:`~monai_kd.handlers.loss_terms` brings them to MONAI's loggers. With a
    ``CorrectedTeacher`` the metrics of an epoch hold ``false_pixels_teacher``, and ``false_pixels_<name>`` for each
    correction: the false pixels of an image that are left after it, the mean over all ranks.

    Example::

        >>> import torch
        >>> from monai_kd.losses import KDLoss
        >>> from monai_kd.networks import Teacher
        >>> teacher = Teacher(torch.nn.Conv2d(1, 2, 1))
        >>> handler = DistillationHandler(teacher, [DistillationTerm(KDLoss(), weight=0.5)])
    """

    rank_timeout = RANK_TIMEOUT  # for the other ranks to start

    def __init__(
        self,
        teacher: AnyTeacher,
        terms: Sequence[DistillationTerm],
        supervised_weight: float = 1.0,
        student: nn.Module | None = None,
        monitor_interval: int = 50,
        drown_ratio: float = 2.0,
        auto_share: float | None = None,
        unlabelled: Iterable[Any] | str | None = None,
        pseudo_labels: bool = False,
    ) -> None:
        if not isinstance(teacher, CorrectedTeacher):
            check_teacher(teacher)
        self.terms = by_name(terms, teacher)
        check_corrected(teacher, self.terms)
        reads_logits = any(not term.student_layers for term in self.terms.values())
        self.pair = TeacherStudentPair(teacher, student, self.names, self.layers, reads_logits)
        share = AUTO_SHARES[unlabelled is not None] if auto_share is None else auto_share
        self.auto_share = as_number("`auto_share`", share)
        self.supervised_weight = as_number("`supervised_weight`", supervised_weight)
        self.term_weights = TermWeights(self.terms, self.auto_share, self.supervised_weight > 0)
        keys = teacher.image_keys | {"image"}
        self.unlabelled = _unlabelled(unlabelled, keys)
        self.pseudo_labels = pseudo_labels
        self.adapters = nn.ModuleDict({name: term.adapters for name, term in self.terms.items() if term.adapters})
        self.monitor = DistillationMonitor(monitor_interval, drown_ratio)
        self.recorder = StepRecorder(self.terms, self.monitor)
        self.knowledge: Knowledge | None = None  # the teacher's outputs, in a step
        self._whole: dict[str, Any] = {}  # predictions and images of labelled and unlabelled images
        self._eager = False

    # what the handler is made of

    @property
    def teacher(self) -> AnyTeacher:
        """The teacher or the team."""
        return self.pair.teacher

    @property
    def student(self) -> nn.Module | None:
        """The network whose layers are captured; None for the trainer's."""
        return self.pair.student

    @property
    def names(self) -> list[str]:
        """The names that are logged under."""
        return list(self.terms)

    @property
    def weights(self) -> dict[str, Weight]:
        """The weight of each term."""
        return {name: term.weight for name, term in self.terms.items()}

    @property
    def losses(self) -> dict[str, Any]:
        """The loss of each term."""
        return {name: term.loss for name, term in self.terms.items()}

    @property
    def layers(self) -> Layers:
        """The layers of the student and of the teacher that the terms compare."""
        of_teacher: dict[str | None, list[str]] = {}
        for term in self.terms.values():
            of_teacher.setdefault(term.teacher, []).extend(term.teacher_layers)
        return [layer for term in self.terms.values() for layer in term.student_layers], of_teacher

    def summary(self) -> str:
        """From whom the student learns, by what, and on which images beside those with labels."""
        summary = self.pair.summary(self.weights)
        if self.unlabelled is None:
            return summary
        return f"{summary}, also on {self.unlabelled.describe()}"

    # as training starts

    def attach(self, engine: Engine) -> None:
        """Register with a trainer. Attaching twice changes nothing."""
        if engine.has_event_handler(self._start):
            return
        self.pair.check(engine)
        check_loaders(engine, self.adapters.parameters())
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_STARTED, self._before_forward)
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self._ask_teacher)
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self._step)
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self._after_backward)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.pair.end_iteration)
        engine.add_event_handler(Events.EPOCH_STARTED, self._start_epoch)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._end_epoch)
        engine.add_event_handler(Events.TERMINATE, self._finish)
        engine.add_event_handler(Events.COMPLETED, self._finish)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._abort)
        if self.unlabelled is not None:
            engine.add_event_handler(Events.EPOCH_STARTED, self.unlabelled.restart)

    def _start(self, engine: Any) -> None:
        handlers = [each for each in pair_handlers(engine) if isinstance(each, DistillationHandler)]
        check_supervised_weights([each.supervised_weight for each in handlers])
        self._finish(engine)
        student = self.pair.start(engine, self, self._before_forward, self._abort)
        self._check_first(engine)
        self.monitor.start()
        if engine.state.iteration == 0:
            self.term_weights.restart()
        if self.supervised_weight == 0:
            engine.loss_function = LossWithLabels(engine.loss_function)
        # the precision in which a term is computed
        double = any(parameter.dtype == torch.float64 for parameter in student.parameters())
        self.adapters.to(engine.state.device, torch.float64 if double else torch.float32)
        self._register_adapters(engine.optimizer)
        self.pair.capture_layers(engine, student)

    def _check_first(self, engine: Any) -> None:
        """Other handlers must not see images that are no longer in the batch when the loss is computed."""
        first = pair_handlers(engine, IterationEvents.FORWARD_COMPLETED)[0]
        if self.unlabelled is not None and first is not self:
            raise ValueError(
                "`DistillationHandler(unlabelled=...)` must be the first handler that distils, but got "
                f"{type(first).__name__} with {first.names} before it; exchange them."
            )

    def _register_adapters(self, optimizer: torch.optim.Optimizer) -> None:
        known = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
        missing = [each for each in self.adapters.parameters() if id(each) not in known]
        # a group of their own would break a scheduler made before; the fastest, since the others may fine-tune
        max(optimizer.param_groups, key=lambda group: float(group.get("lr", 0.0)))["params"].extend(missing)
        broadcast(self.adapters.parameters())

    # a step, in the order of its events

    def _before_forward(self, engine: Any) -> None:
        self.pair.before_forward()
        if self.unlabelled is not None:
            self.unlabelled.join(engine)
        auto = self.term_weights.auto
        if self.monitor.due(engine.state.iteration, bool(auto)) and self._hides_layers(engine):
            torch.compiler.set_stance("force_eager")
            self._eager = True

    def _hides_layers(self, engine: Any) -> bool:
        """Whether a weight needs gradients at inner layers of a compiled network, which only eager mode gives."""
        needed = any(self.terms[name].student_layers for name in self.term_weights.auto)
        return needed and is_compiled(engine.network)

    def _ask_teacher(self, engine: Any) -> None:
        """Run the teacher on the images that the student saw, before the trainer's loss."""
        self.pair.after_forward(engine)
        self.knowledge = self.teacher(self.pair.inputs(engine, self.teacher))
        if self.unlabelled is not None:
            self._whole = self.unlabelled.split(engine)

    def _step(self, engine: Any) -> None:
        """Add the terms to the loss, before the backward pass. Outputs are (B, C, *spatial), values scalars."""
        state, output = engine.state, engine.state.output
        done = epochs_done(state)

        # outputs and captured features of both networks
        student, teacher = self._outputs(output)
        label = self._label(output, teacher)
        own = self.pair.trainers_loss(state)  # another handler may have added its terms
        supervised = own if self.supervised_weight == 1 else self.supervised_weight * own

        # the value of each term
        asked = self.term_weights.asked(done)
        values = {}
        for name, term in self.terms.items():
            term.set_temperature(done)
            values[name] = self._value(name, asked[name], student, teacher, label)
        self.recorder.values(output, values)
        check_finite(self.names, state, student, teacher, own)

        # the weight of each term, which may follow measured gradients
        norms = self._measure(state, values, supervised, student, asked)
        weights = self.term_weights.at(asked)
        self.recorder.weights(output, weights, norms)

        # the sum
        weighted = {name: weights[name] * value for name, value in values.items()}
        self.recorder.weighted(output, weighted)
        self.recorder.classes(output, student, teacher)
        self.term_weights.see(output["loss_supervised"])
        output["loss"] = sum(weighted.values(), self._reweighted(output["loss"], own, supervised))
        self.pair.added(state)
        self._forget()

    def _outputs(self, output: Any) -> tuple[Knowledge, Knowledge]:
        """Outputs and captured features of student and teacher."""
        if self.knowledge is None:  # the trainer fires no FORWARD_COMPLETED
            raise ValueError(self.pair.refusal)
        return self.pair.student_outputs(output | self._whole), self.knowledge

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

    def _measure(
        self,
        state: Any,
        values: dict[str, torch.Tensor],
        supervised: torch.Tensor,
        student: Knowledge,
        asked: dict[str, float],
    ) -> dict[str, tuple[float, float | None]]:
        """The gradients of the terms and of the supervised loss, in the iterations in which they are due."""
        if not self.monitor.due(state.iteration, bool(self.term_weights.auto)):
            return {}
        # of stacked outputs the whole: the supervised loss has not seen the slices taken here
        pred = (state.output | self._whole)["pred"]
        anchors = Knowledge([pred] if isinstance(pred, torch.Tensor) else student.outputs, student.features)
        reference = supervised if self.supervised_weight > 0 else None
        norms = self.monitor.norms(self.terms, values, reference, anchors, asked)
        self.term_weights.update(norms)
        return norms

    def _reweighted(self, loss: torch.Tensor, own: torch.Tensor, supervised: torch.Tensor) -> torch.Tensor:
        """The loss so far, with the weight of the trainer's own part in it."""
        if loss is own:
            return supervised
        return loss if self.supervised_weight == 1 else loss + (self.supervised_weight - 1) * own

    def _after_backward(self, engine: Any) -> None:
        """The adapters learn as the student does, whose gradients DDP averages."""
        if several_ranks():
            counted = self.term_weights.counted(epochs_done(engine.state)).values()
            mean_gradients(nn.ModuleList([term.adapters for term in counted]).parameters())
        self.pair.pause()

    def _start_epoch(self, engine: Any) -> None:
        if isinstance(self.teacher, CorrectedTeacher):
            self.teacher.forget_counts()

    def _end_epoch(self, engine: Any) -> None:
        if isinstance(self.teacher, CorrectedTeacher):
            counts = self.teacher.false_pixels()
            engine.state.metrics |= {f"false_pixels_{name}": each for name, each in counts.items()}
        counted = self.term_weights.counted(epochs_done(engine.state))
        self.term_weights.end_epoch(self.monitor.end_epoch(engine.state.epoch, counted))

    # as a step and as training ends

    def _forget(self) -> None:
        self.pair.forget()
        self.knowledge, self._whole = None, {}
        if self._eager:
            torch.compiler.set_stance("default")
            self._eager = False

    def _finish(self, engine: Any) -> None:
        self._forget()
        self.pair.finish()
        if isinstance(engine.loss_function, LossWithLabels):
            engine.loss_function = engine.loss_function.loss

    def _abort(self, engine: Any, error: BaseException) -> None:
        self._finish(engine)
        raise_again(engine, self, error)

    # what an optimizer and a checkpoint need

    def parameters(self) -> Iterator[nn.Parameter]:
        """The trainable weights of the adapters, for an optimizer that is built with them."""
        return self.adapters.parameters()

    def state_dict(self) -> dict[str, Any]:
        """
        The adapters' weights, and what is known of the gradients. Schedules need no state: they follow the trainer's
        iteration.
        """
        return {"adapters": self.adapters.state_dict(), **self.term_weights.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what :py:meth:`state_dict` gave."""
        self.adapters.load_state_dict(state_dict["adapters"])
        self.term_weights.load_state_dict(state_dict)


def _unlabelled(source: Iterable[Any] | str | None, keys: set[str]) -> UnlabelledBatches | None:
    if source is None:
        return None
    return MixedImages(keys) if source == MIXED else UnlabelledBatches(source, keys)
