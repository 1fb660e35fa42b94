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

"""What the metrics of whole cases have in common."""

from __future__ import annotations

import torch
from monai.metrics import CumulativeIterationMetric
from monai.metrics.utils import do_metric_reduction
from monai.utils import MetricReduction

from monai_kd.metrics.count_voxels import count_voxels


class CaseMetric(CumulativeIterationMetric):
    """
    A metric of the sizes of prediction, label and their overlap, by case and class. A case whose label is empty has no
    value: NaN, which the mean leaves out, the rule of MONAI's ``DiceMetric(ignore_empty=True)``.
    """

    def __init__(self, include_background: bool, reduction: MetricReduction | str, get_not_nans: bool) -> None:
        super().__init__()
        self.include_background = include_background
        self.reduction = reduction
        self.get_not_nans = get_not_nans

    def value(self, prediction: torch.Tensor, label: torch.Tensor, both: torch.Tensor) -> torch.Tensor:
        """The metric of |P|, |G| and |P and G|, each (B, C) in float64."""
        raise NotImplementedError

    def _compute_tensor(self, y_pred: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        prediction, label, both = count_voxels(y_pred, y, self.include_background)
        return torch.where(label > 0, self.value(prediction, label, both), torch.nan).float()

    def aggregate(
        self, reduction: MetricReduction | str | None = None
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """
        Reduces the values of all cases seen since the last reset, as MONAI's ``do_metric_reduction`` does; but a mean
        of no value at all is NaN, where MONAI's is 0, which for an error would be the best of all.

        Args:
            reduction: instead of the metric's own.

        Raises:
            ValueError: when there are no values yet.
        """
        values = self.get_buffer()
        if values is None:
            raise ValueError("`aggregate` must come after a case, but got none since the last reset.")
        reduction = reduction or self.reduction
        value, not_nans = do_metric_reduction(values, reduction)
        if MetricReduction(reduction).value.startswith("mean"):
            value = torch.where(not_nans > 0, value, torch.nan)
        return (value, not_nans) if self.get_not_nans else value
