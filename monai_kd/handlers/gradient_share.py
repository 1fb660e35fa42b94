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

"""A weight that sets itself: the share of the supervised gradient that a distillation term may have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from monai_kd.handlers._numbers import as_number


class GradientShare:
    """
    The weight of a term, set while training such that its gradient at the student is a share of the supervised
    loss's:

    .. math:: w_k = share \\cdot \\frac{\\lVert \\nabla_a L_{supervised} \\rVert}{\\lVert \\nabla_a L_k \\rVert}

    where a is the student's output, or the captured layers of a term that compares layers. Both norms are measured
    every few iterations and smoothed. The idea is that of the balancer of EnCodec (Défossez et al., "High Fidelity
    Neural Audio Compression", arXiv:2210.13438, section 3.4, Eq. 5); there each gradient is rescaled in each step.

    Use it in place of a number: ``DistillationTerm(loss, weight=GradientShare(0.5))``. ``weight="auto"`` gives each
    such term of a handler an equal part of the handler's ``auto_share``.

    Args:
        share: the share, >= 0. A number, or a callable of the epochs done as
            :py:class:`~monai_kd.handlers.LinearSchedule`.

    Raises:
        ValueError: when ``share`` is no finite number >= 0.

    Example::

        >>> GradientShare(0.5).at(0.0)
        0.5
    """

    def __init__(self, share: float | Callable[[float], float] = 1.0) -> None:
        self.share = share if callable(share) else as_number("`share`", share)

    def at(self, epochs_done: float) -> float:
        """The share after so many epochs."""
        value: Any = self.share(epochs_done) if callable(self.share) else self.share
        return as_number("`share`", value)

    def __repr__(self) -> str:
        share = "scheduled" if callable(self.share) else f"{self.share:g}"
        return f"GradientShare({share})"
