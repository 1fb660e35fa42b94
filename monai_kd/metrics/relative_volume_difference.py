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

"""Relative volume difference."""

from __future__ import annotations

import torch
from monai.metrics import CumulativeIterationMetric
from monai.utils import MetricReduction

from monai_kd.metrics.count_voxels import count_voxels
from monai_kd.metrics.reduce_cases import reduce_cases


class RelativeVolumeDifferenceMetric(CumulativeIterationMetric):
    r"""
    Relative volume difference of each case and class, :math:`(|P| - |G|) / |G|` for prediction P and label G, as EMKD
    (Qin et al., IEEE TMI 2021) Eq. 12: negative where too little is predicted, 0 for equal volumes wherever they lie.

    Over- and under-segmented cases cancel in the mean; ``absolute=True`` takes the magnitude of each case first.

    A case whose label is empty has no value: NaN, which the mean leaves out, the rule of MONAI's
    ``DiceMetric(ignore_empty=True)``. What is predicted there is told by
    :py:class:`monai_kd.metrics.FalsePositiveVolumeMetric`.

    Args:
        include_background: whether the first channel counts, where there are several.
        absolute: whether to take the magnitude.
        reduction: see :py:class:`monai.metrics.DiceMetric`.
        get_not_nans: whether :py:meth:`aggregate` returns the number of valid values too.

    Shapes: prediction and label (B, C, *spatial), binarised; values (B, C).

    Raises:
        ValueError: when the shapes differ or a value is neither 0 nor 1.

    Example::

        >>> metric = RelativeVolumeDifferenceMetric()
        >>> _ = metric(torch.tensor([[[1, 0, 0]]]), torch.tensor([[[0, 1, 1]]]))
        >>> metric.aggregate().item()
        -0.5
    """

    def __init__(
        self,
        include_background: bool = True,
        absolute: bool = False,
        reduction: MetricReduction | str = MetricReduction.MEAN,
        get_not_nans: bool = False,
    ) -> None:
        super().__init__()
        self.include_background = include_background
        self.absolute = absolute
        self.reduction = reduction
        self.get_not_nans = get_not_nans

    def _compute_tensor(self, y_pred: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        prediction, label, _ = count_voxels(y_pred, y, self.include_background)
        difference = (prediction - label) / label
        difference = difference.abs() if self.absolute else difference
        return torch.where(label > 0, difference, torch.nan).float()

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
