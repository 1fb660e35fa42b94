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

"""The loss of nnU-Net with a teacher in it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from monai_kd.handlers._gradient_balancer import GradientBalancer, over_ranks
from monai_kd.handlers.distillation_monitor import EARLY
from monai_kd.losses import KDLoss
from monai_kd.networks import Teacher, TeacherTeam

TERM = "kd"


class DistilledLoss:
    """
    Adds the divergence between the outputs of student and teacher to nnU-Net's loss:

    .. math:: L = L_{nnU-Net} + w \\sum_i v_i \\, KL_i,

    over the outputs i of deep supervision, from the full resolution downwards, with nnU-Net's own weights v. The loss
    is nnU-Net's alone while no image is set, as in its validation.

    Args:
        loss: nnU-Net's loss of (outputs, targets).
        teacher: gives as many outputs as the student.
        weight: w, >= 0, or ``"auto"``: the gradient of the divergence at the outputs is as large as nnU-Net's.
        temperature: softening of both logits, above 0.
        activation: ``"softmax"``, or ``"sigmoid"`` for regions.
        interval: iterations from one measurement of the gradients to the next.

    Attributes:
        image: the batch that the student sees, for the teacher. None: no distillation.
        seen: the last values, by name.

    Raises:
        ValueError: when the weight is negative or no number, and where student and teacher have other outputs.
    """

    def __init__(
        self,
        loss: Any,
        teacher: Teacher | TeacherTeam,
        weight: float | str = "auto",
        temperature: float = 1.0,
        activation: str = "softmax",
        interval: int = 50,
    ) -> None:
        if weight != "auto" and not (isinstance(weight, (int, float)) and 0 <= weight < math.inf):
            raise ValueError(f"`weight` must be 'auto' or a number >= 0, but got {weight!r}.")
        self.loss = loss
        self.teacher = teacher
        self.weight = weight
        self.divergence = KDLoss(temperature=temperature, activation=activation)
        self.interval = interval
        self.balancer = GradientBalancer()
        self.iteration = 0
        self.image: torch.Tensor | None = None
        self.seen: dict[str, float] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["loss"], name)  # nnU-Net asks its own loss for more than the value

    def __call__(self, outputs: Any, targets: Any) -> torch.Tensor:
        """
        Args:
            outputs: logits (B, C, *spatial) of the student, or a list of them.
            targets: as nnU-Net's loss takes them.

        Returns:
            a scalar.
        """
        supervised = self.loss(outputs, targets)
        if self.image is None or self.weight == 0:
            return supervised
        student = [outputs] if isinstance(outputs, torch.Tensor) else list(outputs)
        term = self._term(student, self.teacher(self.image).outputs)
        self.iteration += 1
        if self.weight == "auto" and (self.iteration in EARLY or self.iteration % self.interval == 0):
            self._measure(supervised, term, student)
        weight = self.balancer.scale(TERM) if self.weight == "auto" else float(self.weight)
        self.seen = {"supervised": float(supervised.detach()), TERM: float(term.detach()), "weight": weight}
        return supervised + weight * term

    def _term(self, student: Sequence[torch.Tensor], teacher: Sequence[torch.Tensor]) -> torch.Tensor:
        if [each.shape for each in student] != [each.shape for each in teacher]:
            shapes = [[tuple(each.shape) for each in outputs] for outputs in (student, teacher)]
            raise ValueError(
                f"student and teacher must have outputs of the same shapes, but got {shapes[0]} and {shapes[1]}; both "
                "must be of the same configuration of nnU-Net, with the same classes."
            )
        terms = [
            factor * self.divergence(own, other)
            for factor, own, other in zip(output_weights(len(student)), student, teacher)
            if factor > 0
        ]
        return torch.stack(terms).sum()

    def _measure(self, supervised: torch.Tensor, term: torch.Tensor, student: Sequence[torch.Tensor]) -> None:
        norms = (_norm(term, student), _norm(supervised, student))
        self.balancer.update(over_ranks({TERM: norms}, [TERM]))

    def state_dict(self) -> dict[str, Any]:
        """What a training that goes on needs."""
        return {"balancer": self.balancer.state_dict(), "iteration": self.iteration}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """
        Args:
            state: what :py:meth:`state_dict` gave.
        """
        self.balancer.load_state_dict(state["balancer"])
        self.iteration = int(state["iteration"])


def output_weights(number: int) -> list[float]:
    """
    nnU-Net's weights of the outputs of deep supervision: halved from one to the next, the last one without.

    Example::

        >>> output_weights(3)
        [0.6666666666666666, 0.3333333333333333, 0.0]
    """
    if number == 1:
        return [1.0]
    halved = [0.5**level for level in range(number - 1)]
    return [each / sum(halved) for each in halved] + [0.0]


def _norm(loss: torch.Tensor, outputs: Sequence[torch.Tensor]) -> float:
    """Of the gradient of a loss at the outputs."""
    gradients = torch.autograd.grad(loss, list(outputs), retain_graph=True, allow_unused=True)
    squares = [gradient.float().square().sum() for gradient in gradients if gradient is not None]
    return float(torch.stack(squares).sum().sqrt()) if squares else 0.0
