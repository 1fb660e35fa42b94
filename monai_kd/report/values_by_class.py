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

"""Sorts the metrics of cases by class."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from monai_kd.report.read_cases import CaseMetrics

MEAN = "mean of classes"
ALL = "all cases"  # where each has one class, as one structure in several test sets


def values_by_class(cases: Sequence[CaseMetrics], metric: str) -> dict[str, dict[str, float]]:
    """
    Sort the values of a metric by class and case, without those that are not defined.

    Args:
        cases: the metrics of one run.
        metric: name of the metric.

    Returns:
        for each class, in the order in which they come, the value of each case; with several classes also
        ``mean of classes``: for each case the mean over the classes that it has; ``all cases`` where none has two, as
        where a "class" is a test set.

    Raises:
        ValueError: when no case has the metric.

    Example::

        >>> from monai_kd.report import CaseMetrics, values_by_class
        >>> values_by_class([CaseMetrics("01", "liver", {"dice": 0.9}, 80, 82)], "dice")
        {'liver': {'01': 0.9}}
    """
    if not any(metric in case.metrics for case in cases):
        known = sorted({name for case in cases for name in case.metrics})
        raise ValueError(f"`metric` must be one of {known}, but got {metric!r}.")
    values: dict[str, dict[str, float]] = {case.class_name: {} for case in cases}
    for case in cases:
        value = case.metrics.get(metric, math.nan)
        if not math.isnan(value):
            values[case.class_name][case.case] = value
    if len(values) > 1:
        names = dict.fromkeys(case.case for case in cases)
        found = {name: [by_case[name] for by_case in values.values() if name in by_case] for name in names}
        shared = len({(case.case, case.class_name) for case in cases}) > len(names)
        values[MEAN if shared else ALL] = {name: fmean(several) for name, several in found.items() if several}
    return values
