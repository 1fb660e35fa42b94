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

"""What the handlers share that add to a trainer's loss what a teacher says of the batch."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from torch import nn

from monai_kd.handlers._check_targets import add_savers, check_targets, remove_savers
from monai_kd.handlers._event_order import call_first, call_last, owners
from monai_kd.handlers._image_guard import ImageGuard
from monai_kd.handlers._start_checks import (
    check_engine,
    check_names,
    check_ranks,
    check_teacher,
    check_unused_parameters,
    check_weights,
)
from monai_kd.handlers.distillation_term import Weight, sets_itself
from monai_kd.networks import FeatureCapture, Knowledge, Teacher, TeacherTeam
from monai_kd.networks.feature_capture import forget_compiled, is_compiled
from monai_kd.networks.output_check import OutputCheck, probabilities_message
from monai_kd.networks.teacher import as_outputs


def batch_entry(engine: Any, batch: Any, key: str) -> torch.Tensor:
    """An entry of the batch, on the trainer's device."""
    if not isinstance(batch, Mapping) or key not in batch:
        keys = sorted(map(str, batch)) if isinstance(batch, Mapping) else type(batch).__name__
        raise ValueError(f"`image_key` of the teacher must be an entry of the batch, but got `{key}` of {keys}.")
    return batch[key].to(engine.state.device, non_blocking=engine.non_blocking)


def broadcast(tensors: Iterable[torch.Tensor]) -> None:
    """The first rank's weights or buffers on all ranks."""
    if dist.is_available() and dist.is_initialized():
        for tensor in tensors:
            dist.broadcast(tensor.data, src=0)


def mean_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """The mean of the gradients over the ranks, as DDP makes it of those of its network."""
    for parameter in parameters:
        if parameter.grad is None:  # on this rank alone, perhaps: all must take part
            parameter.grad = torch.zeros_like(parameter)
        dist.all_reduce(parameter.grad)
        parameter.grad /= dist.get_world_size()


def described(weight: Weight) -> str:
    """A weight in a few words."""
    if sets_itself(weight):
        return str(weight)
    return "scheduled" if callable(weight) else f"{weight:g}"


class TeachingHandler(ABC):
    """
    Hears the student and the teacher in each step of a MONAI trainer, so that a handler can add to the loss, and leaves
    nothing behind when training ends.

    Args:
        teacher: who is asked after the student's forward pass.
        student: the network that is listened to; the trainer's ``network`` where None.
    """

    rank_timeout = timedelta(minutes=5)
    supervised_weight = 1.0  # of the trainer's own loss

    def __init__(self, teacher: Teacher | TeacherTeam, student: nn.Module | None = None) -> None:
        check_teacher(teacher)
        self.teacher = teacher
        self.student = student
        self.knowledge: Knowledge | None = None
        self._capture: FeatureCapture | None = None
        self._teacher_captures: list[FeatureCapture] = []
        self._image_guard: ImageGuard | None = None
        self._student_check = OutputCheck()
        self._added_at = -1
        self._silenced: list[Any] = []  # savers that must not write when a training ends before its first step
        self._refusal = ""

    # what a handler is made of

    @property
    @abstractmethod
    def weights(self) -> dict[str, Weight]:
        """The weight of each value that is added to the loss, by its name in the log."""

    @property
    def losses(self) -> dict[str, Any]:
        """The loss of each that may have options."""
        return {}

    @property
    def names(self) -> list[str]:
        """All names that are logged under."""
        return list(self.weights)

    @property
    @abstractmethod
    def layers(self) -> tuple[list[str], dict[str | None, list[str]]]:
        """The layers of the student that are listened to, and those of the teacher; of a team by member."""

    @property
    def reads_logits(self) -> bool:
        """Whether the student's outputs are taken for logits."""
        return True

    def summary(self) -> str:
        """From whom the student learns, by what."""
        members = self.teacher.members.values() or [self.teacher]
        networks = [type(getattr(member, "network", member)).__name__ for member in members]
        weights = [f"{described(weight)} {name}" for name, weight in self.weights.items()]
        return f"distilled from {', '.join(networks)} by {' + '.join(weights)}"

    @abstractmethod
    def _start(self, engine: Any) -> None:
        """As training starts: check, and :py:meth:`_listen`."""

    @abstractmethod
    def _add_terms(self, engine: Any) -> None:
        """Add to the loss, before the backward pass."""

    @abstractmethod
    def _after_backward(self, engine: Any) -> None:
        """After the backward pass, before the optimizer's step."""

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
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self._after_backward)
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self._pause)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._check_fired)
        engine.add_event_handler(Events.TERMINATE, self._finish)
        engine.add_event_handler(Events.COMPLETED, self._finish)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._abort)

    def _begin(self, engine: Any) -> nn.Module:
        """Check what can be checked before the first step; returns the student."""
        self._finish(engine)
        add_savers(engine, self._silenced)
        self._silenced = []
        self._added_at = -1
        self._student_check = OutputCheck()
        call_first(engine, Events.EXCEPTION_RAISED, self._abort)
        call_last(engine, Events.ITERATION_STARTED, self._arm)  # others may copy the student before its hooks are there
        check_names(self.names, [other.names for other in self._others(engine)])
        check_ranks(self.names, self.rank_timeout, type(self).__name__)
        student: nn.Module = engine.network if self.student is None else self.student
        self.teacher.to(engine.state.device)
        check_weights(self.teacher, student, engine.optimizer)
        check_targets(engine, self.teacher.weights_files)
        return student

    def _listen(self, engine: Any, student: nn.Module) -> None:
        """Capture the layers, until :py:meth:`_finish`."""
        own, taught = self.layers
        if "image" in self.teacher.image_keys:
            self._image_guard = ImageGuard(engine.network)
        self._teacher_captures = [self.teacher.capture(layers, member) for member, layers in taught.items() if layers]
        if own:
            check_unused_parameters(engine.network)
            self._capture = FeatureCapture(student, own, compiled=is_compiled(engine.network))
            self._capture.pause()
            forget_compiled(engine.network)  # which may wrap the student that was given

    def _arm(self, engine: Any) -> None:
        if self._capture is not None:
            self._capture.resume()
        if self._image_guard is not None:
            self._image_guard.arm()

    def _pause(self, engine: Any) -> None:
        """Leave the student as it was until the next forward pass: others copy and save it."""
        if self._capture is not None:
            self._capture.pause()

    def _asked(self, engine: Any) -> Teacher | TeacherTeam:
        """Who is asked in this step."""
        return self.teacher

    def _ask_teacher(self, engine: Any) -> None:
        if self._capture is not None:
            self._capture.unhook()  # the loss may call the student again
        if self._image_guard is not None:
            self._image_guard.check(engine.state.output["image"])
        self.knowledge = self._said_by(self._asked(engine), engine)

    @staticmethod
    def _said_by(asked: Teacher | TeacherTeam, engine: Any) -> Knowledge:
        output, batch = engine.state.output, engine.state.batch
        return asked(
            {key: output[key] if key == "image" else batch_entry(engine, batch, key) for key in asked.image_keys}
        )

    def _heard(self, output: Mapping[str, Any]) -> tuple[Knowledge, Knowledge]:
        """What student and teacher have said."""
        if self.knowledge is None:
            raise ValueError(self._refusal)
        features = {} if self._capture is None else self._capture.features
        images = len(output["image"])  # another handler may have shown the student more
        features = {k: v[:images] if len(v) > images else v for k, v in features.items()}
        student = Knowledge(as_outputs(output["pred"], output["image"]), features)
        found = self._student_check(student.logits) if self.reads_logits else None
        if found is not None:
            message = probabilities_message("the student", found, f"train it without its {found}")
            warnings.warn(message, stacklevel=2)
        return student, self.knowledge

    @staticmethod
    def _trainers_loss(state: Any) -> torch.Tensor:
        """The loss of the iteration before any handler touched it."""
        if getattr(state, "trainers_loss", (-1,))[0] != state.iteration:
            state.trainers_loss = (state.iteration, state.output["loss"])
        return state.trainers_loss[1]

    @staticmethod
    def _epochs_done(state: Any) -> float:
        return (state.iteration - 1) / state.epoch_length if state.epoch_length else state.epoch - 1.0

    def _check_fired(self, engine: Any) -> None:
        engine.state.trainers_loss = (-1,)  # its graph goes with the iteration
        if self._added_at != engine.state.iteration:
            raise ValueError(self._refusal)

    def _forget(self) -> None:
        self.knowledge = None
        if self._capture is not None:
            self._capture.unhook()
            self._capture.clear()

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
        if self._added_at < 0:  # no step was made: a saver must not write over an earlier file
            self._silenced += remove_savers(engine)
        attached = owners(engine, Events.EXCEPTION_RAISED)
        if attached[-1] is self and all(isinstance(owner, TeachingHandler) for owner in attached):
            raise error  # ignite takes an exception that has a handler for handled; other handlers decide themselves

    def _others(self, engine: Any) -> list[TeachingHandler]:
        return [
            owner
            for owner in owners(engine, Events.STARTED)
            if isinstance(owner, TeachingHandler) and owner is not self
        ]
