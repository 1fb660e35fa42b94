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

"""One loss between a student and a teacher: what it compares, how much it counts."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from monai_kd.handlers._numbers import as_number
from monai_kd.handlers.gradient_share import GradientShare
from monai_kd.networks import Knowledge
from monai_kd.networks.teacher import plain

Schedule = float | Callable[[float], float]
Weight = Schedule | GradientShare | str


def _names(layers: str | Sequence[str] | None) -> list[str]:
    return [] if layers is None else [layers] if isinstance(layers, str) else list(layers)


def as_weight(weight: Any) -> Weight:
    """A weight as it was given, checked."""
    word = isinstance(weight, str) and weight == "auto"
    if word or isinstance(weight, GradientShare) or callable(weight):
        return weight
    return as_number("`weight`", weight)


def sets_itself(weight: Weight) -> bool:
    """Whether a weight follows measured gradients."""
    return isinstance(weight, (str, GradientShare))


def asked_for(weight: Weight, epochs_done: float, auto_share: float, name: str) -> float:
    """
    The weight after so many epochs, or the share of one that sets itself.

    Args:
        weight: as it was given.
        epochs_done: e.g. 1.5 in the middle of the second epoch.
        auto_share: what ``"auto"`` stands for.
        name: what it is, for the error message.
    """
    if isinstance(weight, str):
        return auto_share
    if isinstance(weight, GradientShare):
        return weight.at(epochs_done)
    return as_number(name, weight(epochs_done) if callable(weight) else weight)


def single(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor without metadata, in single precision, or in double where it is."""
    tensor = plain(tensor)
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


class DistillationTerm:
    """
    A distillation loss, the tensors that it compares and its weight.

    Without layers the loss compares logits. With them it compares the maps of ``student_layer`` and
    ``teacher_layer``; with several layers it is the sum over the pairs (EMKD, Eq. 5 and 8). It is computed in single
    precision, also under autocast and for networks in half precision, or in double where the tensors are.

    Args:
        loss: called as ``loss(student, teacher, label)``, tensors (B, C, *spatial), returns a scalar.
        weight: what the value is multiplied with, >= 0: a number; a callable of the epochs done (a float), as
            :py:class:`~monai_kd.handlers.LinearSchedule`; or ``"auto"`` or a
            :py:class:`~monai_kd.handlers.GradientShare`, which the handler sets from measured gradients. While it is
            0 the term is computed for the log only.
        student_layer: dotted module path in the student, or several; see ``python -m monai_kd layers``.
        teacher_layer: as many paths in the teacher.
        adapter: module applied to the student's map, as :py:class:`~monai_kd.networks.ChannelAdapter`, or one a pair.
            Logits without one must be of one shape, lest a loss broadcasts them.
        name: under which the value is logged, without dots; from the loss's class if None (``KDLoss`` -> ``kd``).
        teacher: the member of a team to listen to; None for a single teacher, or for the mean of a team's logits.
        temperature: schedule for ``loss.temperature``, a number > 0 or a callable as ``weight``; None leaves it.
        outputs: of a student that returns several outputs (deep supervision) compare the ``"first"`` or ``"all"``:
            each, resized to the teacher's output of the same index or, if it has one, to that; summed.

    Raises:
        TypeError: when an adapter is no module.
        ValueError: when layers and adapters do not pair up, or an argument is out of range.

    Example::

        >>> from torch.nn import MSELoss
        >>> hint = lambda student, teacher, label: MSELoss()(student, teacher)
        >>> term = DistillationTerm(hint, weight=0.5, name="hint")
        >>> term.weight_at(0.0)
        0.5
    """

    def __init__(
        self,
        loss: Callable[..., torch.Tensor],
        weight: Weight = 1.0,
        student_layer: str | Sequence[str] | None = None,
        teacher_layer: str | Sequence[str] | None = None,
        adapter: nn.Module | Sequence[nn.Module] | None = None,
        name: str | None = None,
        teacher: str | None = None,
        temperature: Schedule | None = None,
        outputs: str = "first",
    ) -> None:
        if outputs not in ("first", "all"):
            raise ValueError(f"`outputs` must be 'first' or 'all', but got {outputs!r}.")
        if temperature is not None and not hasattr(loss, "temperature"):
            raise ValueError(f"`temperature` must be None for a loss without one, but got {type(loss).__name__}.")
        weights = loss.named_parameters() if isinstance(loss, nn.Module) else []
        trained = [key for key, value in weights if value.requires_grad]
        if trained:
            raise ValueError(
                f"`loss` must have no trainable weights, but got {type(loss).__name__} with {trained[:3]}, which no "
                "optimizer would see; move them into an `adapter`."
            )
        self.loss: Any = loss if temperature is None else copy.copy(loss)  # another term may have it at its own
        self.weight = as_weight(weight)
        self.student_layers, self.teacher_layers = _names(student_layer), _names(teacher_layer)
        if len(self.student_layers) != len(self.teacher_layers):
            raise ValueError(
                "`student_layer` and `teacher_layer` must name as many layers, but got "
                f"{self.student_layers} and {self.teacher_layers}."
            )
        self.outputs = outputs
        self.adapters = self._as_modules(adapter)
        self.name = self._valid_name(self._default_name(loss) if name is None else name)
        self.teacher = teacher
        constant = temperature is not None and not callable(temperature)
        self.temperature = as_number("`temperature`", temperature, "> 0") if constant else temperature

    def _valid_name(self, name: Any) -> str:
        if not isinstance(name, str) or name == "" or "." in name or (self.adapters and hasattr(nn.ModuleDict(), name)):
            raise ValueError(
                "`name` must be a text without dots, with an adapter none that `torch.nn.ModuleDict` has for itself, "
                f"but got {name!r}."
            )
        return name

    def _as_modules(self, adapter: nn.Module | Sequence[nn.Module] | None) -> nn.ModuleList:
        single = isinstance(adapter, nn.Module) and not isinstance(adapter, nn.ModuleList)
        given: Any = [adapter] if single else [] if adapter is None else adapter
        if not isinstance(given, Iterable) or not all(isinstance(each, nn.Module) for each in given):
            raise TypeError(f"`adapter` must be a module or a sequence of modules, but got {adapter!r}.")
        adapters = nn.ModuleList(given)
        pairs = len(self.student_layers) or (1 if self.outputs == "first" else 0)
        if len(adapters) not in (0, pairs):
            raise ValueError(f"`adapter` must be one module for each of {pairs} pairs, but got {len(adapters)}.")
        return adapters

    @staticmethod
    def _default_name(loss: Callable[..., torch.Tensor]) -> str:
        name = getattr(loss, "__name__", type(loss).__name__)
        name = re.sub(r"Loss$", "", name) or name
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()

    @property
    def auto(self) -> bool:
        """Whether the handler sets the weight."""
        return sets_itself(self.weight)

    def weight_at(self, epochs_done: float) -> float:
        """
        The weight after so many epochs, e.g. 1.5 in the middle of the second. Of a weight that the handler sets it is
        the share, 1 for ``"auto"``.
        """
        return asked_for(self.weight, epochs_done, 1.0, f"`weight` of term `{self.name}`")

    def set_temperature(self, epochs_done: float) -> None:
        """Give the loss the temperature of this time, where a schedule was asked for."""
        if self.temperature is not None:
            value = self._at(self.temperature, epochs_done)
            self.loss.temperature = as_number(f"`temperature` of term `{self.name}`", value, "> 0")

    @staticmethod
    def _at(schedule: Schedule, epochs_done: float) -> float:
        return schedule(epochs_done) if callable(schedule) else schedule

    @property
    def activation(self) -> str | None:
        """What the loss makes of logits: "softmax", "sigmoid" where classes overlap, None where it does not say."""
        return None if self.student_layers else getattr(self.loss, "activation", None)

    def anchors(self, student: Knowledge) -> list[torch.Tensor]:
        """The student's tensors at which this term's gradient enters the student."""
        if self.student_layers:
            return [student.features[layer] for layer in self.student_layers]
        return student.outputs if self.outputs == "all" else student.outputs[:1]

    def __call__(self, student: Knowledge, teacher: Knowledge, label: torch.Tensor | None) -> torch.Tensor:
        """
        Args:
            student: the student's outputs and features.
            teacher: the teacher's, or a team's.
            label: one-hot (B, C, *spatial) or integer (B, 1, *spatial).

        Returns:
            the unweighted value, a scalar with a gradient towards the student.
        """
        pairs = list(self._pairs(student, teacher.of(self.teacher)))
        with torch.autocast(pairs[0][0].device.type, enabled=False):
            values = []
            for i, (own, target) in enumerate(pairs):
                own, target = single(own), single(target).detach()
                self._check_shapes(own, target)
                values.append(self._scalar(self.loss(self.adapters[i](own) if self.adapters else own, target, label)))
            return values[0] if len(values) == 1 else torch.stack(values).sum()

    def _check_shapes(self, own: torch.Tensor, target: torch.Tensor) -> None:
        if not self.student_layers and not self.adapters and own.shape != target.shape:
            raise ValueError(
                "`student` must give logits of the shape of `teacher`'s, but got "
                f"{tuple(own.shape)} and {tuple(target.shape)}; both must predict the same classes at the same "
                "resolution, or the term needs an `adapter` (`torch.nn.Identity()` if its loss copes)."
            )

    @staticmethod
    def _scalar(value: Any) -> torch.Tensor:
        if not isinstance(value, torch.Tensor) or value.ndim > 0:
            got = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
            raise ValueError(f"`loss` must return a scalar tensor, but got {got}; reduce it with a mean.")
        return value

    def _pairs(self, student: Knowledge, teacher: Knowledge) -> Iterable[tuple[torch.Tensor, torch.Tensor]]:
        if self.student_layers:
            for own_layer, target_layer in zip(self.student_layers, self.teacher_layers):
                yield student.features[own_layer], teacher.features[target_layer]
        elif self.outputs == "first":
            yield student.logits, teacher.logits
        else:
            targets = teacher.outputs
            targets = targets if len(targets) == len(student.outputs) else [teacher.logits] * len(student.outputs)
            for own, target in zip(student.outputs, targets):
                yield self._resized(own, target.shape[2:]), target

    def _resized(self, output: torch.Tensor, size: torch.Size) -> torch.Tensor:
        if output.shape[2:] == size:
            return output
        return F.interpolate(plain(output).float(), size, mode="bilinear" if len(size) == 2 else "trilinear")
