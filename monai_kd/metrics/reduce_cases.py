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

"""The mean over cases and classes."""

from __future__ import annotations

import torch
from monai.metrics.utils import do_metric_reduction
from monai.utils import MetricReduction


def reduce_cases(values: torch.Tensor | None, reduction: MetricReduction | str) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Reduces the values of a metric by case and class, NaN left out, as MONAI's ``do_metric_reduction`` does; but a mean
    of no value at all is NaN, where MONAI's is 0, which for an error would be the best of all.

    Args:
        values: (cases, classes), what a metric's ``get_buffer()`` gives.
        reduction: see :py:class:`monai.metrics.DiceMetric`.

    Returns:
        the reduced value and the number of values that are not NaN.

    Raises:
        ValueError: when there are no values yet.

    Example::

        >>> reduce_cases(torch.tensor([[0.5], [torch.nan]]), "mean")
        (tensor([0.5000]), tensor(1.))
    """
    if values is None:
        raise ValueError("`aggregate` must come after a case, but got none since the last reset.")
    value, not_nans = do_metric_reduction(values, reduction)
    if str(MetricReduction(reduction).value).startswith("mean"):
        value = torch.where(not_nans > 0, value, torch.nan)
    return value, not_nans
