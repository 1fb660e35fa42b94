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

from __future__ import annotations

import math

import pytest

from monai_kd.report import CaseMetrics, paired_table, paired_test


def run(*dice: float) -> list[CaseMetrics]:
    return [CaseMetrics(str(i), "liver", {"dice": d}, 0 if math.isnan(d) else 9, 9) for i, d in enumerate(dice)]


def test_cases_are_paired_by_name():
    one, two = [0.5, 0.9, 0.7, 0.6, 0.2, 0.4], [0.6, 0.8, 0.9, 0.7, 0.3, 0.1]
    test = paired_test(one, two)
    row = ["distilled", "liver", 6, test.difference, test.low, test.high, test.p_value]
    table = paired_table({"alone": run(*one), "distilled": run(*two)[::-1]})
    assert table.rows == [row]
    assert "too few" not in table.note


def test_too_few_cases_are_not_tested():
    """The difference is shown; of five cases the least p is 2 of 2**5 signs, and an interval of two is their range."""
    values = [i / 10 for i in range(5)]
    assert paired_test(values, [value + 0.1 for value in values]).p_value > 0.05
    table = paired_table({"alone": run(*values), "distilled": run(*(value + 0.1 for value in values))})
    assert table.formatted() == [["distilled", "liver", "5", "+0.100", "-", "-", "-"]]
    assert table.note.endswith("too few cases for a test.")


def test_empty_labels_are_left_out():
    runs = {"alone": run(0.5, math.nan), "distilled": run(0.6, math.nan)}
    assert paired_table(runs).rows[0][2] == 1


def test_every_run_meets_the_first():
    table = paired_table({"alone": run(0.5), "kd": run(0.6), "emkd": run(0.7)})
    assert [(row[0], row[3]) for row in table.rows] == [("kd", pytest.approx(0.1)), ("emkd", pytest.approx(0.2))]
    assert table.title == "Difference of dice from alone"


def test_other_cases_are_refused():
    with pytest.raises(ValueError, match=r"`runs` must have the same cases and classes, .*\[\('liver', '1'\)\]"):
        paired_table({"alone": run(0.5), "distilled": run(0.5, 0.6)})


def test_a_single_run_is_refused():
    with pytest.raises(ValueError, match=r"a baseline and at least one other run, but got \['alone'\]"):
        paired_table({"alone": run(0.5)})
