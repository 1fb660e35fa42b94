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

"""What is predicted where there is nothing."""

from __future__ import annotations

import torch
from monai.metrics import CumulativeIterationMetric
from monai.utils import MetricReduction

from monai_kd.metrics.count_voxels import count_voxels
from monai_kd.metrics.reduce_cases import reduce_cases


class FalsePositiveVolumeMetric(CumulativeIterationMetric):
    """
    Number of voxels predicted for a class in cases whose label for it is empty; NaN for all other cases.

    Dice, VOE and RVD say nothing about such cases and leave them out. Their number is the number of values that are not
    NaN here, and a value of 0 is a case rightly left empty.

    Args:
        include_background: whether the first channel counts, where there are several.
        reduction: see :py:class:`monai.metrics.DiceMetric`.
        get_not_nans: whether :py:meth:`aggregate` returns the number of valid values too.

    Shapes: prediction and label (B, C, *spatial), binarised; values (B, C).

    Raises:
        ValueError: when the shapes differ or a value is neither 0 nor 1.

    Example::

        >>> metric = FalsePositiveVolumeMetric()
        >>> metric(torch.tensor([[[1, 1, 0]]]), torch.tensor([[[0, 0, 0]]]))
        tensor([[2.]])
    """

    def __init__(
        self,
        include_background: bool = True,
        reduction: MetricReduction | str = MetricReduction.MEAN,
        get_not_nans: bool = False,
    ) -> None:
        super().__init__()
        self.include_background = include_background
        self.reduction = reduction
        self.get_not_nans = get_not_nans

    def _compute_tensor(self, y_pred: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        prediction, label, _ = count_voxels(y_pred, y, self.include_background)
        return torch.where(label == 0, prediction, torch.nan).float()

    def aggregate(
        self, reduction: MetricReduction | str | None = None
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """
        Reduces the values of all cases seen since the last reset.

        Args:
            reduction: instead of the metric's own.
        """
        value, not_nans = reduce_cases(self.get_buffer(), reduction or self.reduction)
        return (value, not_nans) if self.get_not_nans else value
