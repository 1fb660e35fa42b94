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

"""Distillation by a discriminator that tells the teacher from the student."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from monai.losses import PatchAdversarialLoss
from monai.networks.utils import eval_mode
from torch import nn

from monai_kd.handlers._finite_check import check_finite
from monai_kd.handlers._gradient_balancer import GradientBalancer, over_ranks
from monai_kd.handlers._numbers import as_number
from monai_kd.handlers._ranks import broadcast, mean_gradients, several_ranks
from monai_kd.handlers._start_checks import check_apart, check_discriminator, check_teacher
from monai_kd.handlers._teacher_student_pair import (
    RANK_TIMEOUT,
    Layers,
    TeacherStudentPair,
    epochs_done,
    raise_again,
)
from monai_kd.handlers.distillation_monitor import DistillationMonitor
from monai_kd.handlers.distillation_term import Weight, as_weight, asked_for, sets_itself, single
from monai_kd.losses._activation import OverlapCheck
from monai_kd.losses._channels import probabilities
from monai_kd.networks import Knowledge, Teacher, TeacherTeam
from monai_kd.networks.errors_of import errors_of
from monai_kd.networks.isolated_rng import isolated_rng
from monai_kd.networks.shared_memory import named_tensors, numbered
from monai_kd.networks.teacher import plain

AUTO_SHARE = 0.1  # the discriminator decides on noise at first
TURNS = ("alternate", "random", "sequential", "both")


class AdversarialDistillationHandler:
    """
    Lets a student learn to be taken for its teacher by a discriminator D, which learns to tell them apart, in any
    MONAI trainer that :py:class:`~monai_kd.handlers.DistillationHandler` fits (HAD-Net, Vadacchino et al., MIDL 2021;
    XP-Net, EndoCV 2022, Eq. 2 and 3):

    .. math::
        L_S &= L_{supervised} + \\lambda \\, MSE[D(x, \\hat y_S, f_S), 1] \\\\
        L_D &= MSE[D(x, \\hat y_S, f_S), 0] + MSE[D(x, \\hat y_T, f_T), 1]

    with the student's image x, the segmentation and inner maps f of each network. The first is added to the trainer's
    loss; by the second D is stepped after the student's backward pass, with its own optimizer and the same maps.
    Neither gradient reaches the other network. D follows the trainer in gradient accumulation and mixed precision,
    whose scaler it shares, and is equal on all ranks, its gradients being averaged; its normalisation should not
    depend on the batch, nor should it draw at random (dropout), which moves the random state that the student draws
    from. XP-Net's text has "fake" come from the teacher, its Eq. 3 from the student, as here and in
    HAD-Net. HAD-Net's code runs the teacher in train mode, with dropout; here it is in eval.

    Of several teachers (a :py:class:`~monai_kd.networks.TeacherTeam`) XP-Net says "teacher 1 or teacher 2" and "multi-
    step learning"; ``turns`` is how that is read.

    To resume exactly, save the handler with the student, ``CheckpointSaver(save_dict={"network": ..., "optimizer":
    ..., "trainer": ..., "adversarial": handler})``, and attach ``CheckpointLoader`` after it: it holds D, its optimizer
    and the teacher's turn. A trainer has one handler of this kind, beside any number of ``DistillationHandler``.

    Args:
        teacher: a :py:class:`~monai_kd.networks.Teacher` or :py:class:`~monai_kd.networks.TeacherTeam`.
        discriminator: called as ``discriminator(segmentation, image, features)``, as
            :py:class:`~monai_kd.networks.nets.HierarchicalDiscriminator`; returns decisions of any shape, unbounded.
        optimizer: of the discriminator's weights, all and no others.
        student_layers: list of dotted module paths in the student; see ``python -m monai_kd layers``. May be empty.
        teacher_layers: as many paths in the teacher, or of a team a list by member; the student's where None.
        weight: lambda, >= 0, or a callable of the epochs done. XP-Net does not give it; 0.2 is HAD-Net's. A
            :py:class:`~monai_kd.handlers.GradientShare` sets it from measured gradients, ``"auto"`` at a share of 0.1.
        turns: which teacher of a team is the real one in a step of D: ``"alternate"``; ``"random"``; ``"sequential"``
            (each for its share of the epochs, in the order of the team); ``"both"`` (the mean over all teachers).
        seed: of the turns at random, which are the same on all ranks and after a resume.
        max_accuracy: D is not stepped where it tells more than this part of the patches right, in (0, 1]; 0.8 in
            HAD-Net's code. None: it always is.
        probabilities: whether D sees probabilities (softmax, of one channel sigmoid: XP-Net), or logits (HAD-Net's
            code).
        monitor_interval: iterations from one measurement of the student's gradient to the next, 0 for none; see
            :py:class:`~monai_kd.handlers.distillation_monitor.DistillationMonitor`.

    Raises:
        TypeError: when an argument is of another type; layers must be lists.
        ValueError: when an argument is out of range; (as training starts) where ``DistillationHandler`` raises it, or
            when weights of the discriminator are the student's, the teacher's or in the student's optimizer; (at the
            first batch, before the first step) when a map does not fit the discriminator.

    Each iteration puts ``loss_supervised``, ``loss_adversarial``, ``loss_adversarial_weighted``, ``loss_discriminator``
    and ``discriminator_accuracy`` (of patches, in [0, 1]) into ``engine.state.output``;
    :py:func:`~monai_kd.handlers.loss_terms` brings them to MONAI's loggers.

    Example::

        >>> from monai_kd.networks.nets import HierarchicalDiscriminator
        >>> teachers = TeacherTeam([Teacher(nn.Conv2d(3, 1, 1)), Teacher(nn.Conv2d(3, 1, 1))])
        >>> discriminator = HierarchicalDiscriminator(spatial_dims=2, in_channels=4, features=[], channels=(8, 16))
        >>> optimizer = torch.optim.Adam(discriminator.parameters(), lr=2e-4, betas=(0.5, 0.999))
        >>> handler = AdversarialDistillationHandler(teachers, discriminator, optimizer, student_layers=[])
    """

    rank_timeout = RANK_TIMEOUT  # for the other ranks to start
    supervised_weight = 1.0  # of the trainer's own loss

    def __init__(
        self,
        teacher: Teacher | TeacherTeam,
        discriminator: nn.Module,
        optimizer: torch.optim.Optimizer,
        student_layers: Sequence[str],
        teacher_layers: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
        weight: Weight = 0.2,
        turns: str = "alternate",
        seed: int = 0,
        max_accuracy: float | None = None,
        probabilities: bool = True,
        monitor_interval: int = 50,
    ) -> None:
        check_teacher(teacher)
        self.teacher = teacher
        check_discriminator(discriminator, optimizer)
        if turns not in TURNS:
            raise ValueError(f"`turns` must be one of {', '.join(TURNS)}, but got {turns!r}.")
        if max_accuracy is not None and not 0 < as_number("`max_accuracy`", max_accuracy) <= 1:
            raise ValueError(f"`max_accuracy` must be in (0, 1] or None, but got {max_accuracy}.")
        self.discriminator = discriminator
        self.optimizer = optimizer
        self.loss = PatchAdversarialLoss(criterion="least_squares", no_activation_leastsq=True)
        self.student_layers = self._listed("student_layers", student_layers)
        given = self.student_layers if teacher_layers is None else teacher_layers
        self.teacher_layers = self._by_member(given, [*teacher.members] or [None])
        self.pair = TeacherStudentPair(teacher, None, self.names, self.layers, probabilities)
        self.weight = as_weight(weight)
        self.balancer = GradientBalancer()
        self.turns = turns
        self.seed = seed
        self.max_accuracy = max_accuracy
        self.probabilities = probabilities
        self.monitor = DistillationMonitor(monitor_interval)
        self._check_overlap = OverlapCheck("pass `probabilities=False`, so that the discriminator sees logits")
        self.turn = 0
        self._members: list[str | None] = []
        self._unheard = True
        self.knowledge: Knowledge | None = None  # of the teacher, until the discriminator's step
        self._said: Knowledge | None = None
        self._accuracies: list[torch.Tensor] = []

    @staticmethod
    def _listed(name: str, layers: Any) -> list[str]:
        if not isinstance(layers, (list, tuple)) or not all(isinstance(layer, str) for layer in layers):
            raise TypeError(f"`{name}` must be a list of layers, but got {layers!r}.")
        return list(layers)

    def _by_member(self, layers: Any, members: Sequence[str | None]) -> dict[str | None, list[str]]:
        members = list(members)
        given = layers if isinstance(layers, Mapping) else dict.fromkeys(members, layers)
        if set(given) != set(members):
            raise ValueError(f"`teacher_layers` must name the teachers {members}, but got {sorted(map(str, given))}.")
        taught: dict[str | None, list[str]] = {
            member: self._listed("teacher_layers", given[member]) for member in members
        }
        if any(len(each) != len(self.student_layers) for each in taught.values()):
            raise ValueError(
                "`student_layers` and `teacher_layers` must name as many layers, but got "
                f"{self.student_layers} and {layers}."
            )
        return taught

    @property
    def student(self) -> nn.Module | None:
        """The network whose layers are captured: the trainer's."""
        return self.pair.student

    @property
    def losses(self) -> dict[str, Any]:
        """No loss has options."""
        return {}

    @property
    def weights(self) -> dict[str, Weight]:
        """Lambda."""
        return {"adversarial": self.weight}

    @property
    def names(self) -> list[str]:
        """What is logged under."""
        return ["adversarial", "discriminator"]

    @property
    def layers(self) -> Layers:
        """The layers that the discriminator sees."""
        return self.student_layers, self.teacher_layers

    def summary(self) -> str:
        """From whom the student learns, by what, in which turns."""
        turns = f" ({self.turns})" if len(self.teacher_layers) > 1 else ""
        gate = "" if self.max_accuracy is None else f", discriminator up to an accuracy of {self.max_accuracy:g}"
        seen = "probabilities" if self.probabilities else "logits"
        return f"{self.pair.summary(self.weights)} of {seen}{turns}{gate}"

    # the steps of a step

    def attach(self, engine: Engine) -> None:
        """Register with a trainer. Attaching twice changes nothing."""
        if engine.has_event_handler(self._start):
            return
        self.pair.check(engine)
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_STARTED, self._before_forward)
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self._after_forward)
        engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self._add_term)
        engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self._after_backward)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self.pair.end_iteration)
        engine.add_event_handler(Events.TERMINATE, self._finish)
        engine.add_event_handler(Events.COMPLETED, self._finish)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._abort)

    def _start(self, engine: Any) -> None:
        self._finish(engine)
        student = self.pair.start(engine, self, self._before_forward, self._abort)
        trained = [parameter for group in engine.optimizer.param_groups for parameter in group["params"]]
        check_apart(self.discriminator, named_tensors(student), "the student's")
        check_apart(self.discriminator, self.teacher.named_tensors(), "the teacher's")
        check_apart(self.discriminator, numbered(trained), "in the student's `optimizer`")
        self._unheard = True
        self.discriminator.to(engine.state.device).train()
        broadcast([*self.discriminator.parameters(), *self.discriminator.buffers()])
        self.monitor.start()
        if engine.state.iteration == 0:
            self.balancer = GradientBalancer()
        self.pair.capture_layers(engine, student)

    def _before_forward(self, engine: Any) -> None:
        self.pair.before_forward()

    def _after_forward(self, engine: Any) -> None:
        self.pair.after_forward(engine)
        teacher = self._in_turn(engine)
        self.knowledge = teacher(self.pair.inputs(engine, teacher))

    def _in_turn(self, engine: Any) -> Teacher | TeacherTeam:
        """The teacher of this step."""
        names = list(self.teacher.members)
        if not names or self.turns == "both":
            self._members = [*names] or [None]
            return self.teacher
        name = names[self._index(engine.state, len(names))]
        self._members = [name]
        return self.teacher.members[name]

    def _index(self, state: Any, number: int) -> int:
        """The teacher in turn."""
        if self.turns == "sequential":
            return min((state.epoch - 1) * number // state.max_epochs, number - 1)
        if self.turns == "alternate":
            return self.turn % number
        return int(np.random.SeedSequence([self.seed, self.turn]).generate_state(1)[0]) % number

    def _add_term(self, engine: Any) -> None:
        output, state = engine.state.output, engine.state
        student, teacher = self.pair.student_outputs(output), self.knowledge
        if teacher is None:
            raise ValueError(self.pair.refusal)
        if self.probabilities:
            self._check_overlap(output.get("label"), student.logits)
        own = self.pair.trainers_loss(state)  # for a handler that weights it
        asked = self._weight_at(epochs_done(state))
        with torch.set_grad_enabled(asked > 0), self._frozen():
            value = self._loss(self._decide("the student", student, self.student_layers, output["image"]), real=True)
        output["loss_adversarial"] = value.detach()
        check_finite(["adversarial"], state, student, teacher, own)
        output.setdefault("loss_supervised", own.detach())
        norms = self._measure(state, value, own, student, asked)
        weight = asked * self.balancer.scale("adversarial") if self.auto else asked
        weighted = weight * value
        output["loss_adversarial_weighted"] = weighted.detach()
        if self.auto:
            output["weight_adversarial"] = weight
        terms: Any = {"adversarial": self}
        ratios = self.monitor.ratios(terms, norms, {"adversarial": weight})
        output.update({f"gradient_ratio_{name}": ratio for name, ratio in ratios.items()})
        output["loss"] = output["loss"] + weighted
        features = {layer: feature.detach() for layer, feature in student.features.items()}
        self._said = Knowledge([student.logits.detach()], features)
        if self.pair.capture is not None:
            self.pair.capture.clear()
        self.pair.added(state)

    @property
    def auto(self) -> bool:
        """Whether the weight is set from measured gradients."""
        return sets_itself(self.weight)

    def _measure(
        self, state: Any, value: torch.Tensor, supervised: torch.Tensor, student: Knowledge, asked: float
    ) -> dict[str, tuple[float, float | None]]:
        """The gradients of the term and of the supervised loss, in the iterations in which they are due."""
        if not self.monitor.due(state.iteration, self.auto):
            return {}
        terms: Any = {"adversarial": self}
        found = self.monitor.norms(terms, {"adversarial": value}, supervised, student, {"adversarial": asked})
        if self.auto:
            self.balancer.update(over_ranks(found, terms))
        return found

    def anchors(self, student: Knowledge) -> list[torch.Tensor]:
        """The student's tensors at which the gradient enters it."""
        return [student.logits, *(student.features[layer] for layer in self.student_layers)]

    def _after_backward(self, engine: Any) -> None:
        student, teacher, output = self._said, self.knowledge, engine.state.output
        if student is None or teacher is None:
            raise ValueError(self.pair.refusal)
        begins, ends, share = self._window(engine)
        if begins:
            self.optimizer.zero_grad()
            self._accuracies.clear()
        scaler = engine.scaler if engine.amp else None
        with nullcontext() if scaler is None else torch.autocast("cuda", **engine.amp_kwargs):
            fake = self._decide("the student", student, self.student_layers, output["image"])
            taught = [(teacher.members.get(name or "", teacher), self.teacher_layers[name]) for name in self._members]
            real = [self._decide("the teacher", said, layers, output["image"]) for said, layers in taught]
            if self._unheard:
                self._hear_the_others(engine)
        loss = self._loss(fake, real=False) + torch.stack([self._loss(each, real=True) for each in real]).mean()
        output["loss_discriminator"] = loss.detach()
        check_finite(["discriminator"], engine.state, student, teacher)
        shared = loss / share if share > 1 else loss
        (shared if scaler is None else scaler.scale(shared)).backward()
        right = torch.stack([(each >= 0.5).float().mean() for each in real]).mean()
        self._accuracies.append(((fake <= 0.5).float().mean() + right) / 2)
        output["discriminator_accuracy"] = self._accuracies[-1]
        self._forget()
        if ends:
            self._step(scaler)
        self.pair.pause()

    def _hear_the_others(self, engine: Any) -> None:
        """At the first batch: the maps of teachers whose turn is yet to come must fit the discriminator as well."""
        self._unheard = False
        with torch.no_grad(), isolated_rng(), eval_mode(self.discriminator):
            for name in set(self.teacher_layers) - set(self._members):
                member = self.teacher.members[str(name)]
                said = member(self.pair.inputs(engine, member))
                self._decide(f"the teacher `{name}`", said, self.teacher_layers[name], engine.state.output["image"])

    @staticmethod
    def _window(engine: Any) -> tuple[bool, bool, int]:
        """Whether gradients begin to accumulate in this iteration, whether it ends in a step, and the divisor."""
        length = getattr(engine, "accumulation_steps", 1)
        epoch_length = engine.state.epoch_length
        done = engine.state.iteration - 1
        done = done if epoch_length is None else done % epoch_length
        return done % length == 0, (done + 1) % length == 0 or done + 1 == epoch_length, length

    def _step(self, scaler: torch.amp.GradScaler | None) -> None:
        accuracy = torch.stack(self._accuracies).mean()
        if several_ranks():
            mean_gradients(parameter for parameter in self.discriminator.parameters() if parameter.requires_grad)
            dist.all_reduce(accuracy)
            accuracy /= dist.get_world_size()
        if self.max_accuracy is None or accuracy <= self.max_accuracy:
            self.optimizer.step() if scaler is None else scaler.step(self.optimizer)  # the trainer updates its scale
        self.turn += 1

    def _decide(self, who: str, said: Knowledge, layers: Sequence[str], image: torch.Tensor) -> torch.Tensor:
        """What the discriminator says of the maps of a network."""
        dtype = next((p.dtype for p in self.discriminator.parameters()), image.dtype)
        logits = single(said.logits)
        if self.probabilities:
            logits = probabilities(logits)
        features = [plain(said.features[layer]).to(dtype) for layer in layers]
        with errors_of(f"`discriminator` on the maps of {who}"):
            # a copy of the image: what is written into it is seen by nobody
            decision = self.discriminator(logits.to(dtype), plain(image).to(dtype, copy=True), features)
        if not isinstance(decision, torch.Tensor):
            raise TypeError(f"`discriminator` must return a tensor, but got {type(decision).__name__}.")
        return single(decision)

    def _loss(self, decision: torch.Tensor, real: bool) -> torch.Tensor:
        return self.loss(decision, target_is_real=real, for_discriminator=True)

    @contextmanager
    def _frozen(self) -> Iterator[None]:
        """A pass through the discriminator that leaves it no gradient."""
        trained = [parameter for parameter in self.discriminator.parameters() if parameter.requires_grad]
        try:
            for parameter in trained:
                parameter.requires_grad_(False)
            yield
        finally:
            for parameter in trained:
                parameter.requires_grad_(True)

    def _weight_at(self, done: float) -> float:
        """The weight, or the share where the weight is set from measured gradients."""
        return asked_for(self.weight, done, AUTO_SHARE, "`weight`")

    def _forget(self) -> None:
        self.pair.forget()
        self.knowledge = self._said = None

    def _finish(self, engine: Any) -> None:
        self._forget()
        self.pair.finish()

    def _abort(self, engine: Any, error: BaseException) -> None:
        self._finish(engine)
        raise_again(engine, self, error)

    # what a checkpoint needs

    def state_dict(self) -> dict[str, Any]:
        """The discriminator, its optimizer and the number of turns so far."""
        return {
            "discriminator": self.discriminator.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "turn": self.turn,
            "balancer": self.balancer.state_dict(),
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Load what :py:meth:`state_dict` gave."""
        self.discriminator.load_state_dict(state_dict["discriminator"])
        self.optimizer.load_state_dict(state_dict["optimizer"])
        self.turn = int(state_dict["turn"])
        if "balancer" in state_dict:
            self.balancer.load_state_dict(state_dict["balancer"])
