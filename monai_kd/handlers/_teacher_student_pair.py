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

"""The outputs of student and teacher in a step of a MONAI trainer."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import torch
from ignite.distributed import get_rank
from ignite.engine import Events
from monai.handlers import CheckpointSaver
from torch import nn

from monai_kd.corrections import CorrectedTeacher
from monai_kd.handlers._check_targets import add_savers, check_targets, remove_savers
from monai_kd.handlers._event_order import call_first, call_last, owners
from monai_kd.handlers._image_guard import ImageGuard
from monai_kd.handlers._start_checks import (
    check_engine,
    check_names,
    check_ranks,
    check_unused_parameters,
    check_weights,
)
from monai_kd.handlers.distillation_term import Weight, sets_itself
from monai_kd.networks import FeatureCapture, Knowledge, Teacher, TeacherTeam
from monai_kd.networks.feature_capture import forget_compiled, is_compiled
from monai_kd.networks.output_check import OutputCheck, probabilities_message
from monai_kd.networks.teacher import as_outputs

RANK_TIMEOUT = timedelta(minutes=5)
Layers = tuple[list[str], dict[str | None, list[str]]]
AnyTeacher = Teacher | TeacherTeam | CorrectedTeacher


def batch_entry(engine: Any, batch: Any, key: str) -> torch.Tensor:
    """An entry of the batch, on the trainer's device."""
    if not isinstance(batch, Mapping) or key not in batch:
        keys = sorted(map(str, batch)) if isinstance(batch, Mapping) else type(batch).__name__
        raise ValueError(f"`image_key` of the teacher must be an entry of the batch, but got `{key}` of {keys}.")
    return batch[key].to(engine.state.device, non_blocking=engine.non_blocking)


def epochs_done(state: Any) -> float:
    """Epochs before this iteration, e.g. 1.5 in the middle of the second."""
    if state.epoch_length:
        return (state.iteration - 1) / state.epoch_length
    return state.epoch - 1.0


class TeacherStudentPair:
    """
    Runs the teacher on the images of the student and captures the layers of both.

    A handler holds one and calls it in the events of its trainer. Nothing of it is left in the
    networks when training ends.

    Args:
        teacher: the frozen teacher or a team.
        student: the network whose layers are captured; the trainer's ``network`` where None.
        names: what the handler logs under.
        layers: the captured layers of the student, and those of the teacher; of a team by member.
        reads_logits: whether the student's outputs are used as logits.
    """

    def __init__(
        self,
        teacher: AnyTeacher,
        student: nn.Module | None,
        names: Sequence[str],
        layers: Layers,
        reads_logits: bool = True,
    ) -> None:
        self.teacher = teacher
        self.student = student
        self.names = list(names)
        self.layers = layers
        self.reads_logits = reads_logits
        self.capture: FeatureCapture | None = None
        self.refusal = ""
        self._teacher_captures: list[FeatureCapture] = []
        self._image_guard: ImageGuard | None = None
        self._student_check = OutputCheck()
        self._added_at = -1
        self._removed: list[CheckpointSaver] = []  # which must not write when no step was made
        self._peers: list[TeacherStudentPair] = []
        self._trainers_loss: torch.Tensor | None = None

    # as a handler is attached and as training starts

    def check(self, engine: Any) -> None:
        """Refuse an engine that is no MONAI trainer."""
        self.refusal = check_engine(engine)

    def start(self, engine: Any, handler: Any, before_forward: Any, abort: Any) -> nn.Module:
        """
        Check what can be checked before the first step.

        Args:
            engine: the trainer.
            handler: that holds this pair.
            before_forward: its function that arms the captures.
            abort: its function that ends a training with an error.

        Returns:
            the student.
        """
        add_savers(engine, self._removed)
        self._removed = []
        self._added_at = -1
        self._student_check = OutputCheck()
        call_first(engine, Events.EXCEPTION_RAISED, abort)
        # others may copy the student before its hooks are there
        call_last(engine, Events.ITERATION_STARTED, before_forward)
        self._peers = [peer.pair for peer in pair_handlers(engine) if peer is not handler]
        check_names(self.names, [peer.names for peer in self._peers])
        check_ranks(self.names, handler.rank_timeout, type(handler).__name__)
        student: nn.Module = engine.network if self.student is None else self.student
        self.teacher.to(engine.state.device)
        check_weights(self.teacher, student, engine.optimizer)
        check_targets(engine, self.teacher.weights_files)
        if get_rank() == 0:
            engine.logger.info(handler.summary())
        return student

    def capture_layers(self, engine: Any, student: nn.Module) -> None:
        """Capture the layers until :py:meth:`finish`."""
        own, others = self.layers
        if "image" in self.teacher.image_keys:
            self._image_guard = ImageGuard(engine.network)
        self._teacher_captures = [self.teacher.capture(layers, member) for member, layers in others.items() if layers]
        if own:
            check_unused_parameters(engine.network)
            self.capture = FeatureCapture(student, own, compiled=is_compiled(engine.network))
            self.capture.pause()
            forget_compiled(engine.network)  # which may wrap the student that was given

    # in a step

    def before_forward(self) -> None:
        """Record the student's coming forward pass."""
        if self.capture is not None:
            self.capture.resume()
        if self._image_guard is not None:
            self._image_guard.arm()

    def after_forward(self, engine: Any) -> None:
        """End the recording: the trainer's loss may call the student again."""
        if self.capture is not None:
            self.capture.unhook()
        if self._image_guard is not None:
            self._image_guard.check(engine.state.output["image"])

    def inputs(self, engine: Any, teacher: AnyTeacher) -> dict[str, Any]:
        """
        Args:
            engine: the trainer, after the student's forward pass.
            teacher: the teacher, or a member of the team.

        Returns:
            the images (B, channels, *spatial) that the teacher needs, and the label of the batch.
        """
        output, batch = engine.state.output, engine.state.batch
        images = {key: output[key] if key == "image" else batch_entry(engine, batch, key) for key in teacher.image_keys}
        return images | {"label": output.get("label")}

    def student_outputs(self, output: Mapping[str, Any]) -> Knowledge:
        """
        Args:
            output: the engine's, with the student's ``image`` and ``pred``.

        Returns:
            the student's outputs (B, C, *spatial) and captured features.
        """
        features = {} if self.capture is None else self.capture.features
        images = len(output["image"])  # another handler may have shown the student more
        features = {k: v[:images] if len(v) > images else v for k, v in features.items()}
        student = Knowledge(as_outputs(output["pred"], output["image"]), features)
        found = self._student_check(student.logits) if self.reads_logits else None
        if found is not None:
            message = probabilities_message("the student", found, f"train it without its {found}")
            warnings.warn(message, stacklevel=2)
        return student

    def trainers_loss(self, state: Any) -> torch.Tensor:
        """The loss of the iteration before any handler added to it."""
        known = [peer._trainers_loss for peer in self._peers if peer._trainers_loss is not None]
        self._trainers_loss = known[0] if known else state.output["loss"]
        return self._trainers_loss

    def added(self, state: Any) -> None:
        """Note that the loss of this iteration holds the terms."""
        self._added_at = state.iteration

    def pause(self) -> None:
        """Leave the student as it was until the next forward pass: others copy and save it."""
        if self.capture is not None:
            self.capture.pause()

    def end_iteration(self, engine: Any) -> None:
        """Refuse a trainer that did not fire the events of the step."""
        self._trainers_loss = None  # its graph goes with the iteration
        if self._added_at != engine.state.iteration:
            raise ValueError(self.refusal)

    def forget(self) -> None:
        """Drop the captured features of this step."""
        if self.capture is not None:
            self.capture.unhook()
            self.capture.clear()

    # as training ends

    def finish(self) -> None:
        """Remove all hooks."""
        self.forget()
        own = [] if self.capture is None else [self.capture]
        for capture in [*own, *self._teacher_captures]:
            capture.remove()
        if self._image_guard is not None:
            self._image_guard.remove()
        self.capture, self._teacher_captures, self._image_guard = None, [], None
        self._trainers_loss = None

    def keep_files(self, engine: Any) -> None:
        """As training ends with an error: a saver must not write over an earlier file when no step was made."""
        if self._added_at < 0:
            self._removed += remove_savers(engine)

    def summary(self, weights: Mapping[str, Weight]) -> str:
        """From which networks the student learns, by which terms."""
        members = self.teacher.members.values() or [self.teacher]
        networks = [type(getattr(member, "network", member)).__name__ for member in members]
        terms = [f"{_described(weight)} {name}" for name, weight in weights.items()]
        return f"distilled from {', '.join(networks)} by {' + '.join(terms)}"


def pair_handlers(engine: Any, event: Any = Events.STARTED) -> list[Any]:
    """The handlers of an event that hold a pair, in the order of their calls."""
    found = owners(engine, event)
    return [owner for owner in found if isinstance(getattr(owner, "pair", None), TeacherStudentPair)]


def raise_again(engine: Any, handler: Any, error: BaseException) -> None:
    """
    Raise an error of the training that only handlers of pairs have seen: ignite takes an exception
    that has a handler for handled. Other handlers decide themselves.
    """
    handler.pair.keep_files(engine)
    attached = owners(engine, Events.EXCEPTION_RAISED)
    if attached[-1] is handler and attached == pair_handlers(engine, Events.EXCEPTION_RAISED):
        raise error


def _described(weight: Weight) -> str:
    """A weight in a few words."""
    if sets_itself(weight):
        return str(weight)
    return "scheduled" if callable(weight) else f"{weight:g}"
