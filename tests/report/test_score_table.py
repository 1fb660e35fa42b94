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

from monai_kd.report import CaseMetrics, NetworkCost, score_table


def cases(**dice: list[float]) -> list[CaseMetrics]:
    return [
        CaseMetrics(f"{name}_{i}", name, {"dice": value, "iou": value / (2 - value)}, 9, 9)
        for name, values in dice.items()
        for i, value in enumerate(values)
    ]


def cost(parameters: int, flops: int) -> NetworkCost:
    return NetworkCost(parameters, parameters, flops, 1.0, 2.0, 3.0, (1, 3, 8, 8), "cpu")


RUNS = {"teacher": cases(Kvasir=[0.8, 1.0], ETIS=[0.5]), "student": cases(Kvasir=[0.6, 0.8], ETIS=[0.0])}


def test_a_row_for_each_run_with_the_means_of_each_set():
    table = score_table(RUNS)
    assert list(table.columns) == ["run", "Kvasir dice", "Kvasir iou", "ETIS dice", "ETIS iou"]
    assert table.rows[0] == ["teacher", 0.9, pytest.approx((2 / 3 + 1) / 2), 0.5, pytest.approx(1 / 3)]
    assert table.rows[1] == ["student", 0.7, pytest.approx((3 / 7 + 2 / 3) / 2), 0.0, 0.0]


def test_sizes_stand_between():
    costs = {"teacher": cost(25_107_604, 21_700_000_000), "student": cost(3_650_740, 3_800_000_000)}
    table = score_table(RUNS, ["dice"], costs)
    assert list(table.columns)[:3] == ["run", "M parameters", "GFLOPs"]
    assert [row[:3] for row in table.formatted()] == [["teacher", "25.11", "21.70"], ["student", "3.65", "3.80"]]


def test_a_set_that_a_run_lacks_and_an_empty_label_have_no_value():
    runs = {"a": cases(Kvasir=[0.8]), "b": cases(ETIS=[0.4, math.nan])}
    assert score_table(runs, ["dice"]).formatted() == [["a", "0.800", "-"], ["b", "-", "0.400"]]


def test_what_is_missing_is_named():
    with pytest.raises(ValueError, match="`runs` must hold at least one run"):
        score_table({})
    with pytest.raises(ValueError, match=r"`costs` must hold each run, but got none for \['student'\]"):
        score_table(RUNS, costs={"teacher": cost(1, 1)})
    with pytest.raises(ValueError, match="`metric` must be one of"):
        score_table(RUNS, ["voe"])
