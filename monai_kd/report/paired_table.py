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

"""Paired tests of several runs against the first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from monai_kd.report.paired_test import paired_test
from monai_kd.report.read_cases import CaseMetrics
from monai_kd.report.table import Cell, Table
from monai_kd.report.values_by_class import values_by_class

FEWEST = 6  # of fewer the test cannot give p < 0.05, whatever the difference


def paired_table(runs: Mapping[str, Sequence[CaseMetrics]], metric: str = "dice", title: str = "") -> Table:
    """
    Compare every run with the first, class by class and case by case, by :py:func:`paired_test`.

    Args:
        runs: the cases of each run under its name; the first is the baseline.
        metric: metric to compare.
        title: title of the table.

    Returns:
        a table with the columns run, class, n, difference, 95% low, 95% high, p; the last three are missing where there
        are fewer than 6 cases.

    Raises:
        ValueError: with fewer than two runs, or when a run has other cases or classes than the first.

    Example::

        >>> from monai_kd.report import CaseMetrics, paired_table
        >>> alone = [CaseMetrics(str(i), "liver", {"dice": i / 10}, 9, 9) for i in range(6)]
        >>> distilled = [CaseMetrics(str(i), "liver", {"dice": i / 10 + 0.1}, 9, 9) for i in range(6)]
        >>> paired_table({"alone": alone, "distilled": distilled}).formatted()
        [['distilled', 'liver', '6', '+0.100', '+0.100', '+0.100', '0.0312']]
    """
    if len(runs) < 2:
        raise ValueError(f"`runs` must hold a baseline and at least one other run, but got {list(runs)}.")
    baseline, *others = runs
    first = values_by_class(runs[baseline], metric)
    rows: list[list[Cell]] = []
    for run in others:
        second = values_by_class(runs[run], metric)
        _check_same_cases(baseline, first, run, second)
        for class_name, values in first.items():
            pairs = [(value, second[class_name][case]) for case, value in values.items()]
            if not all(math.isfinite(value) for pair in pairs for value in pair):  # a distance to nothing
                rows.append([run, class_name, len(pairs), *[math.nan] * 4])
            elif pairs:
                test = paired_test([one for one, _ in pairs], [two for _, two in pairs])
                tested = [test.low, test.high, test.p_value] if test.n >= FEWEST else [math.nan] * 3
                rows.append([run, class_name, test.n, test.difference, *tested])
    signed = dict.fromkeys(["difference", "95% low", "95% high"], "+.3f")
    note = (
        "Wilcoxon signed-rank test, two-sided, not corrected for the number of rows; interval by bootstrap over cases."
    )
    if any(math.isnan(row[-1]) for row in rows):  # type: ignore[arg-type]
        note += f" A dash: fewer than {FEWEST} cases, too few cases for a test."
    columns = {"run": "", "class": "", "n": "d", **signed, "p": ".3g"}
    return Table(title or f"Difference of {metric} from {baseline}", columns, rows, note)


def _check_same_cases(baseline: str, first: dict, run: str, second: dict) -> None:
    """Runs on other cases cannot be paired."""
    ours, theirs = ({(name, case) for name, values in side.items() for case in values} for side in (first, second))
    if ours != theirs:
        odd = sorted(ours ^ theirs)[:5]
        raise ValueError(
            f"`runs` must have the same cases and classes, but got {baseline} and {run}, of which one lacks {odd}; "
            "evaluate both on the same cases."
        )
