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

"""Several teachers that speak as one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from monai_kd.networks.feature_capture import FeatureCapture
from monai_kd.networks.knowledge import Knowledge
from monai_kd.networks.teacher import Teacher


class TeacherTeam:
    """
    Several teachers. Together they say the weighted mean of their probabilities (You et al., 2017, Eq. 6),

    .. math:: z = \\log \\sum_i w_i \\, \\mathrm{softmax}(z_i), \\qquad \\sum_i w_i = 1,

    given as logits, since the softmax of a log-probability is the probability. One-channel logits are averaged by
    sigmoid, and those of classes that overlap channel by channel with ``activation="sigmoid"``. A
    :py:class:`~monai_kd.handlers.DistillationTerm` with ``teacher="name"`` listens to one of them alone.

    Args:
        teachers: teachers by name, or a sequence of them (then named ``teacher_0``, ``teacher_1``, ...).
        weights: one positive number a teacher, scaled to sum 1; equal where None.
        activation: ``"softmax"`` for classes that exclude each other, ``"sigmoid"`` for those that may overlap.

    Raises:
        ValueError: when there is no teacher, the weights do not fit, or the activation is another one.

    Example::

        >>> import torch
        >>> team = TeacherTeam([Teacher(torch.nn.Conv2d(1, 2, 1)), Teacher(torch.nn.Conv2d(1, 2, 1))])
        >>> sorted(team(torch.zeros(1, 1, 8, 8)).members)
        ['teacher_0', 'teacher_1']
    """

    def __init__(
        self,
        teachers: Mapping[str, Teacher] | Sequence[Teacher],
        weights: Sequence[float] | None = None,
        activation: str = "softmax",
    ) -> None:
        if activation not in ("softmax", "sigmoid"):
            raise ValueError(f"`activation` must be one of 'softmax', 'sigmoid', but got {activation!r}.")
        if not isinstance(teachers, Mapping):
            teachers = {f"teacher_{i}": teacher for i, teacher in enumerate(teachers)}
        weights = [1.0] * len(teachers) if weights is None else list(weights)
        if not teachers:
            raise ValueError("`teachers` must hold at least one teacher, but got none.")
        if len(weights) != len(teachers) or min(weights) <= 0 or not math.isfinite(sum(weights)):
            raise ValueError(
                f"`weights` must hold one positive number for each of the {len(teachers)} teachers, and a finite sum, "
                f"but got {weights}."
            )
        if len({id(teacher) for teacher in teachers.values()}) < len(teachers):
            raise ValueError("`teachers` must be different objects, but got one twice; make a `Teacher` for each.")
        self.activation = activation
        self.members = dict(teachers)
        self.weights = [weight / sum(weights) for weight in weights]

    @torch.no_grad()
    def __call__(self, image: torch.Tensor | Mapping[str, torch.Tensor]) -> Knowledge:
        """
        Args:
            image: (B, C, *spatial), or a mapping that holds the image of each teacher under its ``image_key``.

        Returns:
            the mean as logits (B, C, *spatial), and under ``members`` what each teacher says.
        """
        members = {name: teacher(image) for name, teacher in self.members.items()}
        shapes = {name: tuple(knowledge.logits.shape) for name, knowledge in members.items()}
        if len(set(shapes.values())) > 1:
            raise ValueError(f"`teachers` must give logits of one shape, but got {shapes}.")
        return Knowledge([self._mean([knowledge.logits for knowledge in members.values()])], members=members)

    def _mean(self, logits: list[torch.Tensor]) -> torch.Tensor:
        if self.activation == "softmax" and logits[0].shape[1] > 1:
            return self._log_mean(logits)
        pairs = [torch.stack([torch.zeros_like(each), each], dim=1) for each in logits]  # sigmoid: softmax over [0, z]
        log_mean = self._log_mean(pairs)
        return log_mean[:, 1] - log_mean[:, 0]

    def _log_mean(self, logits: list[torch.Tensor]) -> torch.Tensor:
        logs = [each.float().log_softmax(dim=1) for each in logits]
        weights = logs[0].new_tensor(self.weights).log()
        return torch.logsumexp(torch.stack([log + weight for log, weight in zip(logs, weights)]), dim=0)

    @property
    def weights_files(self) -> list[Path]:
        """The files that the weights of the members were read from."""
        return [file for teacher in self.members.values() for file in teacher.weights_files]

    @property
    def image_keys(self) -> set[str]:
        """The entries of the batch that the teachers need."""
        return set().union(*(teacher.image_keys for teacher in self.members.values()))

    def capture(self, layers: Sequence[str], member: str | None = None) -> FeatureCapture:
        """Record these layers of one member at each call from now on, until the capture is removed."""
        if member is None:
            raise ValueError(
                f"`teacher` must name one of {sorted(self.members)} where a term listens to a layer, but got None."
            )
        return self.members[member].capture(layers)

    def to(self, device: torch.device | str) -> TeacherTeam:
        """Move the weights to a device."""
        for teacher in self.members.values():
            teacher.to(device)
        return self

    def parameters(self) -> Iterator[nn.Parameter]:
        """The frozen weights of all."""
        for teacher in self.members.values():
            yield from teacher.parameters()

    def named_tensors(self) -> dict[str, torch.Tensor]:
        """The weights and buffers of all by name, which begins with the member's."""
        found: dict[str, torch.Tensor] = {}
        for name, teacher in self.members.items():
            for key, tensor in teacher.named_tensors().items():
                found[f"{name}.{key}"] = tensor
        return found
