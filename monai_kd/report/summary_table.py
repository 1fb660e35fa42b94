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

"""Means of the metrics of several runs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev

from monai_kd.report.read_cases import CaseMetrics
from monai_kd.report.table import Cell, Spread, Table
from monai_kd.report.values_by_class import ALL, MEAN, values_by_class

MEANINGS = {
    "dice": "dice is the overlap of prediction and label, 1 at best",
    "iou": "iou the intersection over the union, 1 at best",
    "voe": "voe the volume overlap error, 0 at best",
    "rvd": "rvd the relative volume difference, 0 at best and negative where too little is predicted",
}
NOTE = (
    "Mean and standard deviation over cases (n - 1). Cases whose label has no voxel of the class are counted under "
    "`empty` and left out of the means; `false` counts those of them in which some were predicted."
)


NOTHING = 0.05
FOUND_NOTHING = (
    f"No run reaches a dice of {NOTHING} in any class: these networks have found nothing, and what differs between "
    "them is no result. Train longer, or look at the data first."
)


def summary_table(
    runs: Mapping[str, Sequence[CaseMetrics]],
    metrics: Sequence[str] = ("dice", "voe", "rvd"),
    title: str = "Metrics per case",
) -> Table:
    r"""
    Summarise the metrics of runs: for each run and class the mean and the standard deviation over cases,

    .. math::

        \bar x \pm \sqrt{\tfrac{1}{n - 1} \sum_i (x_i - \bar x)^2}

    Args:
        runs: the cases of each run under its name.
        metrics: metrics to show.
        title: title of the table.

    Returns:
        a table with the columns run, class, n, empty, false, and one for each metric; its note says so where no run
        reaches a mean dice of 0.05 in any class.

    Raises:
        ValueError: without a run, or when a run does not have a metric.

    Example::

        >>> from monai_kd.report import CaseMetrics, summary_table
        >>> cases = [CaseMetrics(str(i), "liver", {"dice": d}, 9, 9) for i, d in enumerate((0.8, 0.9))]
        >>> summary_table({"student": cases}, ["dice"]).formatted()
        [['student', 'liver', '2', '0', '0', '0.850 ± 0.071']]
    """
    if not runs:
        raise ValueError("`runs` must hold at least one run, but got none.")
    rows: list[list[Cell]] = []
    for run, cases in runs.items():
        values = [values_by_class(cases, metric) for metric in metrics]
        for class_name in values[0]:
            empty = _predicted_in_empty(cases, class_name)
            false = sum(voxels > 0 for voxels in empty)
            spreads = [_spread(list(value[class_name].values())) for value in values]
            rows.append([run, class_name, len(values[0][class_name]), len(empty), false, *spreads])
    columns = {"run": "", "class": "", "n": "d", "empty": "d", "false": "d", **dict.fromkeys(metrics, ".3f")}
    note = " ".join([NOTE, *([FOUND_NOTHING] if _found_nothing(metrics, rows) else [])])
    meanings = ", ".join(MEANINGS[metric] for metric in metrics if metric in MEANINGS)
    return Table(title, columns, rows, f"{meanings[:1].upper()}{meanings[1:]}. {note}" if meanings else note)


def _found_nothing(metrics: Sequence[str], rows: Sequence[Sequence[Cell]]) -> bool:
    if "dice" not in metrics:
        return False
    cells = [row[len(row) - len(metrics) + list(metrics).index("dice")] for row in rows]
    means = [cell.mean for cell in cells if isinstance(cell, Spread) and not math.isnan(cell.mean)]
    return bool(means) and max(means) < NOTHING


def _predicted_in_empty(cases: Sequence[CaseMetrics], class_name: str) -> list[int]:
    """For each case whose label has no voxel of the class (of all classes, for their mean), the voxels predicted."""
    label, pred = Counter[str](), Counter[str]()
    for case in cases:
        if class_name in (case.class_name, MEAN, ALL):
            label[case.case] += case.label_voxels
            pred[case.case] += case.pred_voxels
    return [pred[case] for case, voxels in label.items() if voxels == 0]


def _spread(values: list[float]) -> Spread:
    if not values:
        return Spread(math.nan, math.nan)
    spread = len(values) > 1 and all(map(math.isfinite, values))  # a distance may be infinite
    return Spread(fmean(values), stdev(values) if spread else math.nan)
