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

import numpy as np
import pytest

from monai_kd.report import CaseMetrics, summary_table

NAN = math.nan


def test_values_against_numpy():
    dice = [0.91, 0.72, 0.85, 0.13]
    cases = [CaseMetrics(str(i), "liver", {"dice": d}, 9, 9) for i, d in enumerate(dice)]
    run, class_name, n, empty, false, spread = summary_table({"student": cases}, ["dice"]).rows[0]
    assert (run, class_name, n, empty, false) == ("student", "liver", 4, 0, 0)
    assert spread == pytest.approx((np.mean(dice), np.std(dice, ddof=1)))


def test_empty_labels_are_counted_and_left_out():
    cases = [
        CaseMetrics("1", "liver", {"dice": 0.9}, 9, 9),
        CaseMetrics("1", "tumour", {"dice": NAN}, 0, 5),
        CaseMetrics("2", "liver", {"dice": NAN}, 0, 0),
        CaseMetrics("2", "tumour", {"dice": NAN}, 0, 0),
    ]
    assert summary_table({"student": cases}, ["dice"]).formatted() == [
        ["student", "liver", "1", "1", "0", "0.900"],
        ["student", "tumour", "0", "2", "1", "-"],
        ["student", "mean of classes", "1", "1", "0", "0.900"],
    ]


def test_note_explains_the_metrics_that_are_shown():
    cases = [CaseMetrics("1", "liver", {"dice": 0.9, "rvd": 0.1, "hd95": 3.0}, 9, 9)]
    note = summary_table({"student": cases}, ["dice", "rvd", "hd95"]).note
    assert note.startswith("Dice is the overlap of prediction and label, 1 at best, rvd the relative volume difference")
    assert "voe" not in note
    assert summary_table({"student": cases}, ["hd95"]).note.startswith("Mean and standard deviation")


def test_order_of_cases_does_not_matter():
    cases = [CaseMetrics(str(i), name, {"dice": i / 9}, i, i) for i in range(5) for name in ("liver", "tumour")]
    forth, back = (summary_table({"student": each}, ["dice"]) for each in (cases, cases[::-1]))
    assert sorted(forth.formatted()) == sorted(back.formatted())


@pytest.mark.parametrize(
    ("dice", "found"),
    [((0.0, 0.049), False), ((0.0, 0.05), True), ((NAN, 0.01), False), ((NAN, NAN), True)],
)
def test_note_says_so_where_no_run_found_anything(dice, found):
    runs = {str(i): [CaseMetrics("1", "liver", {"voe": 0.5, "dice": d}, 9, 9)] for i, d in enumerate(dice)}
    note = summary_table(runs, ["voe", "dice"]).note
    assert ("No run reaches a dice of 0.05 in any class" in note) is not found
    assert "No run reaches" not in summary_table(runs, ["voe"]).note


def test_no_run_is_refused():
    with pytest.raises(ValueError, match="`runs` must hold at least one run"):
        summary_table({})


def test_one_infinite_distance_makes_the_mean_infinite():
    """A network that misses a lesion must not look better for it."""
    cases = [CaseMetrics(str(i), "tumor", {"hd": value}, 9, 9) for i, value in enumerate((0.5, 0.5, math.inf))]
    assert summary_table({"student": cases}, ["hd"]).formatted() == [["student", "tumor", "3", "0", "0", "inf"]]
