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
"""Means of several runs on several test sets, a run a row."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

from monai_kd.report.network_cost import NetworkCost
from monai_kd.report.read_cases import CaseMetrics
from monai_kd.report.table import Cell, Table
from monai_kd.report.values_by_class import values_by_class

NOTE = "Means over the cases of a test set or class; cases whose label is empty count in none."


def score_table(
    runs: Mapping[str, Sequence[CaseMetrics]],
    metrics: Sequence[str] = ("dice", "iou"),
    costs: Mapping[str, NetworkCost] | None = None,
    title: str = "Scores and size",
) -> Table:
    """
    Put runs side by side as papers do (KDAS, Tables 1 and 2): a row for each run, its size, and for each test set or
    class the mean of each metric.

    Args:
        runs: the cases of each run under its name; see :py:class:`monai_kd.handlers.CaseMetricsHandler` and its
            `group_key` for test sets.
        metrics: metrics to show.
        costs: the size of the network of each run, see :py:func:`network_cost`; None leaves these columns out.
        title: title of the table.

    Returns:
        a table with the columns run, M parameters, GFLOPs, and one for each class and metric.

    Raises:
        ValueError: without a run, when a run does not have a metric, or a cost is missing.

    Example::

        >>> from monai_kd.report import CaseMetrics, score_table
        >>> cases = [CaseMetrics(str(i), "Kvasir polyp", {"dice": d}, 9, 9) for i, d in enumerate((0.8, 0.9))]
        >>> print(score_table({"student": cases}, ["dice"]).to_markdown())
        | run     | Kvasir polyp dice |
        |---------|------------------:|
        | student |             0.850 |
    """
    if not runs:
        raise ValueError("`runs` must hold at least one run, but got none.")
    if costs is not None and set(runs) - set(costs):
        raise ValueError(f"`costs` must hold each run, but got none for {sorted(set(runs) - set(costs))}.")
    found = {run: {metric: values_by_class(cases, metric) for metric in metrics} for run, cases in runs.items()}
    classes = list(dict.fromkeys(case.class_name for cases in runs.values() for case in cases))
    rows: list[list[Cell]] = []
    for run, values in found.items():
        size: list[Cell] = [] if costs is None else [costs[run].parameters / 1e6, costs[run].flops / 1e9]
        scores = [list(values[metric].get(name, {}).values()) for name in classes for metric in metrics]
        rows.append([run, *size, *(fmean(several) if several else math.nan for several in scores)])
    columns = {"run": ""} | ({} if costs is None else {"M parameters": ".2f", "GFLOPs": ".2f"})
    return Table(title, columns | {f"{name} {metric}": ".3f" for name in classes for metric in metrics}, rows, NOTE)
