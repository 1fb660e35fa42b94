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

"""What is known of the gradients of the terms whose weights set themselves."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.distributed as dist

from monai_kd.handlers._ranks import several_ranks

DECAY = 0.8  # of the smoothed norms, from one measurement to the next
MAX_CHANGE = 2.0  # of a weight, from one measurement to the next
MAX_RANGE = 100.0  # of a weight, from the first measurement


class GradientBalancer:
    """
    Smooths the gradient norms of terms and of the supervised loss, and says how a term is to be scaled so that both
    are equal.

    A measurement changes a scale by a factor of at most 2, and all of them together by at most 100 from the first. One
    in which a gradient is 0 or not finite is skipped. Without a supervised gradient the scale of a term is 1.

    Example::

        >>> balancer = GradientBalancer()
        >>> balancer.update({"kd": (0.5, 2.0)})
        >>> balancer.scale("kd")
        4.0
    """

    def __init__(self) -> None:
        self.own: dict[str, float] = {}
        self.reference: dict[str, float] = {}
        self.first: dict[str, float] = {}
        self.scales: dict[str, float] = {}
        self.damping = 1.0  # of all shares; falls where the student stops learning

    def update(self, norms: Mapping[str, tuple[float, float | None]]) -> None:
        """
        Args:
            norms: for each term the norm of its unweighted gradient and that of the supervised loss, at the same
                place; None where there is no supervised loss.
        """
        for name, (own, reference) in norms.items():
            if reference is not None and all(0 < norm < math.inf for norm in (own, reference)):
                self._smooth(name, own, reference)

    def _smooth(self, name: str, own: float, reference: float) -> None:
        if name not in self.scales:
            self.own[name], self.reference[name] = own, reference
            self.first[name] = self.scales[name] = reference / own
            return
        self.own[name] += (1 - DECAY) * (own - self.own[name])
        self.reference[name] += (1 - DECAY) * (reference - self.reference[name])
        wanted = self.reference[name] / self.own[name]
        before, first = self.scales[name], self.first[name]
        near = min(max(wanted, before / MAX_CHANGE), before * MAX_CHANGE)
        self.scales[name] = min(max(near, first / MAX_RANGE), first * MAX_RANGE)

    def scale(self, name: str) -> float:
        """What the term's gradient is multiplied with to be as large as the supervised one."""
        return self.scales.get(name, 1.0)

    def state_dict(self) -> dict[str, Any]:
        """All that is known, as numbers."""
        known = ("own", "reference", "first", "scales")
        return {key: dict(getattr(self, key)) for key in known} | {"damping": self.damping}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load what :py:meth:`state_dict` gave."""
        for key in ("own", "reference", "first", "scales"):
            setattr(self, key, dict(state[key]))
        self.damping = float(state["damping"])


class LearningGuard:
    """
    Notices a student that stops learning: it predicts a single class in a whole epoch whose labels hold several, or
    its mean supervised loss of an epoch is above that of the first iterations.

    Example::

        >>> guard = LearningGuard()
        >>> for loss in (1.0, 3.0):
        ...     guard.see(torch.tensor(loss))
        >>> guard.why(collapsed=True)
        'it predicts a single class'
    """

    first_iterations = 10

    def __init__(self) -> None:
        self.start = 0.0  # sum of the supervised loss over the first iterations
        self.count = 0  # of them
        self._losses: list[torch.Tensor] = []  # of this epoch

    def see(self, loss: torch.Tensor) -> None:
        """Note the supervised loss of an iteration; nothing is copied from the device yet."""
        self._losses.append(loss.detach().float())

    def why(self, collapsed: bool) -> str:
        """At the end of an epoch: why the student does not learn, or an empty text if it does."""
        losses = torch.stack(self._losses).tolist() if self._losses else []
        self._losses.clear()
        for loss in losses[: self.first_iterations - self.count]:
            self.start += loss
            self.count += 1
        if collapsed:
            return "it predicts a single class"
        start = self.start / max(1, self.count)
        mean = sum(losses) / max(1, len(losses))
        if losses and mean > start:
            return f"its supervised loss rose from {start:.3g} to {mean:.3g}"
        return ""

    def state_dict(self) -> dict[str, Any]:
        """The supervised loss of the first iterations."""
        return {"start": self.start, "count": self.count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Load what :py:meth:`state_dict` gave."""
        self.start, self.count = float(state["start"]), int(state["count"])
        self._losses.clear()


def over_ranks(
    norms: Mapping[str, tuple[float, float | None]], names: Iterable[str]
) -> dict[str, tuple[float, float | None]]:
    """
    The root mean square of the norms over the ranks, so that all weight alike.

    Args:
        norms: of this rank; a term without a gradient here may be missing.
        names: the terms, the same on all ranks.
    """
    if not several_ranks():
        return dict(norms)
    pairs = {name: norms.get(name, (0.0, None)) for name in names}
    flat = [[value or 0.0 for value in pair] for pair in pairs.values()]
    device = "cuda" if dist.get_backend() == "nccl" else "cpu"
    squares = torch.tensor(flat, dtype=torch.float64, device=device).square()
    dist.all_reduce(squares)
    means = (squares / dist.get_world_size()).sqrt().tolist()
    return {name: (own, reference) for name, (own, reference) in zip(pairs, means)}
