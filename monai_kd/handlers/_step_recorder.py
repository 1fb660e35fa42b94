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

"""What a step of distillation leaves in the log and in the monitor."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from monai_kd.handlers._overlap import with_background
from monai_kd.handlers.distillation_monitor import DistillationMonitor
from monai_kd.handlers.distillation_term import DistillationTerm
from monai_kd.networks import Knowledge


class StepRecorder:
    """
    Writes the values of a step into the engine's output, from where loggers take them, and shows
    the monitor gradients and classes.

    Args:
        terms: the terms by name.
        monitor: watches the student.
    """

    def __init__(self, terms: Mapping[str, DistillationTerm], monitor: DistillationMonitor) -> None:
        self.terms = terms
        self.monitor = monitor
        self._overlapping = any(term.activation == "sigmoid" for term in terms.values())

    def values(self, output: dict[str, Any], values: Mapping[str, torch.Tensor]) -> None:
        """Write the unweighted value of each term, and the supervised loss."""
        output.update({f"loss_{name}": value.detach() for name, value in values.items()})

    def weights(
        self,
        output: dict[str, Any],
        weights: Mapping[str, float],
        norms: Mapping[str, tuple[float, float | None]],
    ) -> None:
        """Write the weights that follow gradients, and gradient ratios where they were measured."""
        ratios = self.monitor.ratios(self.terms, norms, weights)
        output.update({f"weight_{name}": weights[name] for name in weights if self.terms[name].auto})
        output.update({f"gradient_ratio_{name}": ratio for name, ratio in ratios.items()})

    def weighted(self, output: dict[str, Any], weighted: Mapping[str, torch.Tensor]) -> None:
        """Write what each term adds to the loss, and the supervised loss."""
        output.setdefault("loss_supervised", output["loss"].detach())
        output.update({f"loss_{name}_weighted": each.detach() for name, each in weighted.items()})

    def classes(self, output: dict[str, Any], student: Knowledge, teacher: Knowledge) -> None:
        """Show the monitor which classes prediction, label and teacher hold."""
        label = output["label"] if isinstance(output.get("label"), torch.Tensor) else None
        seen = student.logits.detach(), label, teacher.logits
        self.monitor.see(*with_background(*seen) if self._overlapping else seen)
