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
from monai.utils import MetricReduction

from monai_kd.metrics._case_metric import CaseMetric


class RelativeVolumeDifferenceMetric(CaseMetric):
    r"""
    Relative volume difference of each case and class, :math:`(|P| - |G|) / |G|` for prediction P and label G, as EMKD
    (Qin et al., IEEE TMI 2021) Eq. 12: negative where too little is predicted, 0 for equal volumes wherever they lie.

    Over- and under-segmented cases cancel in the mean; ``absolute=True`` takes the magnitude of each case first.

    A case whose label is empty has no value: NaN, which the mean leaves out, the rule of MONAI's
    ``DiceMetric(ignore_empty=True)``. What is predicted there is counted by
    :py:class:`monai_kd.handlers.CaseMetricsHandler`.

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
        super().__init__(include_background, reduction, get_not_nans)
        self.absolute = absolute

    def value(self, prediction: torch.Tensor, label: torch.Tensor, both: torch.Tensor) -> torch.Tensor:
        difference = (prediction - label) / label
        return difference.abs() if self.absolute else difference
