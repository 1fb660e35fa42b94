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

"""Watching whether distillation drowns the labels or makes the student see one class."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from numbers import Real

import torch

from monai_kd.handlers.distillation_term import DistillationTerm
from monai_kd.losses._channels import two_channels
from monai_kd.networks import Knowledge
from monai_kd.networks.teacher import plain

EARLY = (1, 2, 4, 8, 16, 32)  # gradients change fast at the start


def _remedy(terms: Mapping[str, DistillationTerm], collapsed: bool = False) -> str:
    """What can be done about terms that pull too hard: the weight first, then what the losses themselves offer."""
    advice = "lower its weight or let it" if len(terms) == 1 else "lower their weights or let them"
    if not all(getattr(term, "auto", False) for term in terms.values()):
        advice = f"take `weight='auto'`, {advice}"
    advice += " ramp up (`LinearSchedule`)"
    warm = [f"`{name}`" for name, term in terms.items() if hasattr(term.loss, "temperature")]
    if warm:
        advice += f", or lower the temperature of {', '.join(warm)}"
    # weighs small classes up: it can turn a student from the background, and makes no gradient smaller
    unbalanced = [f"`{name}`" for name, term in terms.items() if getattr(term.loss, "balance", "class") != "class"]
    if collapsed and unbalanced:
        advice += f", or average {', '.join(unbalanced)} per class (`balance='class'`)"
    return advice


def _norm(loss: torch.Tensor, anchors: Sequence[torch.Tensor]) -> float | None:
    """L2 norm of the gradient of a loss at some tensors; None if there is no path to them."""
    if not loss.requires_grad:
        return 0.0
    scale = float(max(anchor.numel() for anchor in anchors))  # pixel means underflow in half precision
    gradients = torch.autograd.grad(loss * scale, list(anchors), retain_graph=True, allow_unused=True)
    squares = [gradient.float().square().sum() for gradient in gradients if gradient is not None]
    return (torch.stack(squares).sum().sqrt() / scale).item() if squares else None


class DistillationMonitor:
    """
    Measures how strongly each term pulls at the student against the supervised loss, and warns.

    The gradient ratio of a term is the norm of the weighted term's gradient divided by that of the supervised loss,
    both where the term enters the student: at its output, or at the captured layers. A term that drowns the supervised
    loss, or a student that predicts a single class for a whole epoch whose labels hold several, is warned of with the
    remedy: measured on organs of 0.1 to 1 % of the pixels, a KL of temperature 4 made a student predict nothing but
    background, from which the Dice loss has no gradient to return.

    Args:
        interval: iterations from one measurement of the gradients to the next; 0 measures nothing.
        drown_ratio: gradient ratio above which a term is warned of, once a run.
    """

    def __init__(self, interval: int = 50, drown_ratio: float = 2.0) -> None:
        if not isinstance(interval, Real) or not 0 <= interval < math.inf or interval != int(interval):
            raise ValueError(f"`monitor_interval` must be a whole number >= 0, but got {interval!r}.")
        if not isinstance(drown_ratio, Real) or not drown_ratio > 0:
            raise ValueError(f"`drown_ratio` must be positive, but got {drown_ratio!r}.")
        self.interval: int = interval
        self.drown_ratio: float = drown_ratio
        self._warned: set[str] = set()
        self._seen: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None
        self._taught: torch.Tensor | bool | None = None

    def start(self) -> None:
        """Forget what an earlier run has seen."""
        self._warned.clear()
        self._seen, self._taught = None, None

    def due(self, iteration: int, auto: bool = False) -> bool:
        """
        Whether the gradients are measured in this iteration, the first being 1; early on more often where a weight
        follows them.
        """
        early = auto and iteration in EARLY
        return early or (self.interval > 0 and (iteration - 1) % self.interval == 0)

    def norms(
        self,
        terms: Mapping[str, DistillationTerm],
        values: Mapping[str, torch.Tensor],
        supervised: torch.Tensor | None,
        student: Knowledge,
        weights: Mapping[str, float],
    ) -> dict[str, tuple[float, float | None]]:
        """
        Measure the gradients where the terms enter the student.

        Args:
            terms: the terms by name.
            values: their unweighted values of this iteration.
            supervised: the supervised loss as it counts in the sum; None if it does not.
            student: the student's outputs and features of this iteration.
            weights: the weight or share of each term; one of 0 is not expected to have a gradient.

        Returns:
            for each term the L2 norm of its gradient, and of the supervised loss's at the same place: None where there
            is none, or where a compiled network hides the way to its inner layers.
        """
        norms = {}
        for name, value in values.items():
            anchors = terms[name].anchors(student)
            if not all(anchor.requires_grad for anchor in anchors):
                if weights[name] * value != 0 and any(output.requires_grad for output in student.outputs):
                    reason = "the student's layers are frozen or recomputed by a checkpoint with `use_reentrant=True`"
                    self._warn_once(name, f"term `{name}` gives the student no gradient: {reason}.")
                continue
            own = _norm(value, anchors) or 0.0
            if own == 0 and weights[name] * value != 0:
                self._warn_once(name, f"term `{name}` is {value.item():.3g} but gives the student no gradient.")
                continue
            norms[name] = (own, None if supervised is None else _norm(supervised, anchors))
        return norms

    def ratios(
        self,
        terms: Mapping[str, DistillationTerm],
        norms: Mapping[str, tuple[float, float | None]],
        weights: Mapping[str, float],
    ) -> dict[str, float]:
        """
        Args:
            terms: the terms by name.
            norms: what :py:meth:`norms` gave.
            weights: the weight of each term.

        Returns:
            the gradient ratio of each term that has one; terms of a weight that was chosen by hand are warned of.
        """
        ratios = {}
        for name, (norm, reference) in norms.items():
            if reference is None:
                continue
            own = weights[name] * norm
            ratios[name] = own / reference if reference > 0 else float("inf") if own > 0 else 0.0
            if not getattr(terms[name], "auto", False):
                self._warn_drowned(name, terms[name], ratios[name])
        return ratios

    def _warn_drowned(self, name: str, term: DistillationTerm, ratio: float) -> None:
        if ratio > self.drown_ratio:
            remedy = _remedy({name: term})
            message = f"term `{name}` drowns the supervised loss: its gradient is {ratio:.1f} times as large; {remedy}."
            self._warn_once(name, message)

    def _warn_once(self, name: str, message: str) -> None:
        if name not in self._warned:
            self._warned.add(name)
            warnings.warn(message, stacklevel=2)

    @torch.no_grad()
    def see(self, logits: torch.Tensor, label: torch.Tensor | None, taught: torch.Tensor | None = None) -> None:
        """
        Note which classes a batch's prediction, label and (in the first epoch) the teacher's logits hold; nothing is
        copied from the device yet.
        """
        logits, label = plain(logits), None if label is None else plain(label)
        predicted = _classes(logits)
        if taught is not None and self._taught is not False:
            classes = _classes(plain(taught))
            self._taught = classes if self._taught is None else self._taught | classes
        label = logits.new_zeros(1, 1) if label is None else label
        low, high = (label.argmax(dim=1) if label.shape[1] > 1 else label).aminmax()
        if self._seen is not None:
            before = self._seen
            predicted, low, high = predicted | before[0], torch.minimum(low, before[1]), torch.maximum(high, before[2])
        self._seen = (predicted, low, high)

    def end_epoch(self, epoch: int, terms: Mapping[str, DistillationTerm]) -> bool:
        """
        Warn if the epoch's predictions were of a single class while its labels were not.

        Args:
            epoch: the epoch that ends.
            terms: those that counted in it; without one there is no remedy to offer, and no warning.

        Returns:
            whether the student predicted a single class while the labels hold others.
        """
        if self._seen is None:
            return False
        predicted, (low, high) = self._seen[0].nonzero().flatten().tolist(), self._seen[1:]
        taught = self._taught.nonzero().flatten().tolist() if isinstance(self._taught, torch.Tensor) else []
        self._seen, self._taught = None, False  # the teacher will not change
        if len(taught) == 1 and low != high:
            warnings.warn(
                f"the teacher predicted class {taught[0]} alone in all of epoch {epoch}, while the labels hold others: "
                "evaluate it before you distil from it.",
                stacklevel=2,
            )
        collapsed = len(predicted) == 1 and bool(low != high)
        if collapsed and terms:
            remedy = _remedy(terms, collapsed=True)
            warnings.warn(
                f"the student predicted class {predicted[0]} alone in all of epoch {epoch}, while the labels hold "
                f"others. If it stays so, the terms ({', '.join(terms)}) drown the supervised loss: {remedy}.",
                stacklevel=2,
            )
        return collapsed


def _classes(logits: torch.Tensor) -> torch.Tensor:
    """Which classes are the most probable anywhere, one flag each; of one channel background and foreground."""
    logits = two_channels(logits)
    highest = logits >= logits.amax(dim=1, keepdim=True)  # as argmax, which is slow over channels
    return highest.flatten(2).any(dim=2).any(dim=0)
