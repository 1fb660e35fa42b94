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

"""Volume overlap error."""

from __future__ import annotations

import torch
from monai.utils import MetricReduction

from monai_kd.metrics._case_metric import CaseMetric

FORMULAS = ("jaccard", "paper", "code")


class VolumeOverlapErrorMetric(CaseMetric):
    r"""
    Volume overlap error of each case and class, 0 for a perfect prediction P of the label G.

    - ``formula="jaccard"``, the default and the usual one: :math:`1 - |P \cap G| / |P \cup G|`;
    - ``formula="paper"``, EMKD (Qin et al., IEEE TMI 2021) Eq. 11: :math:`1 - |P \cap G| / (|P| + |G|)`, which is 0.5
      for a perfect prediction;
    - ``formula="code"``, EMKD's released code: :math:`2 (|P| - |P \cap G|) / (|P| + |G|)`, which counts only false
      positives.

    The default is neither of EMKD's, because only the usual formula can be compared with other work. Tables IV and V of
    EMKD cannot come from Eq. 11, by which a liver of Dice 0.960 has 0.52, not 0.051; compare with ``formula="code"``.

    A case whose label is empty has no error: its value is NaN and the mean leaves it out, the rule of MONAI's
    ``DiceMetric(ignore_empty=True)``. What is predicted there is counted by
    :py:class:`monai_kd.handlers.CaseMetricsHandler`.

    Args:
        include_background: whether the first channel counts, where there are several.
        formula: "jaccard", "paper" or "code".
        reduction: see :py:class:`monai.metrics.DiceMetric`.
        get_not_nans: whether :py:meth:`aggregate` returns the number of valid values too.

    Shapes: prediction and label (B, C, *spatial), binarised; values (B, C).

    Raises:
        ValueError: when the formula is unknown; when the shapes differ or a value is neither 0 nor 1.

    Example::

        >>> metric = VolumeOverlapErrorMetric()
        >>> _ = metric(torch.tensor([[[1, 1, 0]]]), torch.tensor([[[0, 1, 1]]]))
        >>> round(metric.aggregate().item(), 4)
        0.6667
    """

    def __init__(
        self,
        include_background: bool = True,
        formula: str = "jaccard",
        reduction: MetricReduction | str = MetricReduction.MEAN,
        get_not_nans: bool = False,
    ) -> None:
        super().__init__(include_background, reduction, get_not_nans)
        if formula not in FORMULAS:
            raise ValueError(f"`formula` must be one of {', '.join(FORMULAS)}, but got {formula!r}.")
        self.formula = formula

    def value(self, prediction: torch.Tensor, label: torch.Tensor, both: torch.Tensor) -> torch.Tensor:
        if self.formula == "jaccard":
            return 1 - both / (prediction + label - both)
        if self.formula == "paper":
            return 1 - both / (prediction + label)
        return 2 * (prediction - both) / (prediction + label)
