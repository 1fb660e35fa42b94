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

"""The weights of the terms in a step."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch

from monai_kd.handlers._gradient_balancer import GradientBalancer, LearningGuard, over_ranks
from monai_kd.handlers.distillation_term import DistillationTerm

logger = logging.getLogger("monai_kd")


class TermWeights:
    """
    Gives each term its weight: a number, the value of a schedule, or a factor that follows measured
    gradients.

    Args:
        terms: the terms by name.
        auto_share: the gradient of all terms with ``weight="auto"`` together, relative to the
            supervised loss's.
        supervised: whether the supervised loss counts; only then can shares fall while the student
            does not learn from the labels.
    """

    def __init__(self, terms: Mapping[str, DistillationTerm], auto_share: float, supervised: bool) -> None:
        self.terms = terms
        self.auto_share = auto_share
        self.guarded = supervised and any(term.auto for term in terms.values())
        self.balancer = GradientBalancer()
        self.guard = LearningGuard()

    @property
    def auto(self) -> list[str]:
        """The terms whose weights follow gradients."""
        return [name for name, term in self.terms.items() if term.auto]

    def restart(self) -> None:
        """Forget what was measured."""
        self.balancer, self.guard = GradientBalancer(), LearningGuard()

    def asked(self, epochs_done: float) -> dict[str, float]:
        """The weights and shares that were asked for, after so many epochs."""
        return {name: term.weight_at(epochs_done) for name, term in self.terms.items()}

    def counted(self, epochs_done: float) -> dict[str, DistillationTerm]:
        """The terms whose weight is above 0, after so many epochs."""
        asked = self.asked(epochs_done)
        return {name: term for name, term in self.terms.items() if asked[name] > 0}

    def update(self, norms: Mapping[str, tuple[float, float | None]]) -> None:
        """
        Args:
            norms: for each term the norm of its gradient and that of the supervised loss.
        """
        if self.guarded:
            measured = {name: norms[name] for name in self.auto if name in norms}
            self.balancer.update(over_ranks(measured, self.auto))

    def at(self, asked: Mapping[str, float]) -> dict[str, float]:
        """The weights of this step, from what :py:meth:`asked` gave."""
        equal = sum(term.weight == "auto" for term in self.terms.values())
        weights = {}
        for name, term in self.terms.items():
            weight = asked[name]
            if term.weight == "auto":
                weight *= self.auto_share / max(1, equal)
            if term.auto:
                weight *= self.balancer.damping * self.balancer.scale(name)
            weights[name] = weight
        return weights

    def see(self, supervised: torch.Tensor) -> None:
        """Note the supervised loss of a step, a scalar."""
        if self.guarded:
            self.guard.see(supervised)

    def end_epoch(self, collapsed: bool) -> None:
        """Let the shares fall while the student does not learn, and rise again when it does."""
        if not self.guarded:
            return
        why = self.guard.why(collapsed)
        before = self.balancer.damping
        self.balancer.damping = max(before / 2, 2**-10) if why else min(1.0, before * 2)
        if why:
            logger.warning(
                f"the student stops learning: {why}. The share of {', '.join(self.auto)} falls to "
                f"{self.balancer.damping:g} of what was asked for."
            )

    def state_dict(self) -> dict[str, Any]:
        """What was measured. Schedules need no state: they follow the trainer's iteration."""
        return {"balancer": self.balancer.state_dict(), "guard": self.guard.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load what :py:meth:`state_dict` gave; older checkpoints lack it."""
        if "balancer" in state:
            self.balancer.load_state_dict(state["balancer"])
            self.guard.load_state_dict(state["guard"])
