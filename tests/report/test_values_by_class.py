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

from monai_kd.report import CaseMetrics, values_by_class


def case(name: str, class_name: str, dice: float) -> CaseMetrics:
    return CaseMetrics(name, class_name, {"dice": dice}, 0 if math.isnan(dice) else 9, 9)


def test_mean_is_over_the_classes_that_a_case_has():
    cases = [case("1", "liver", 0.9), case("1", "tumour", 0.5), case("2", "liver", 0.8), case("2", "tumour", math.nan)]
    assert values_by_class(cases, "dice") == {
        "liver": {"1": 0.9, "2": 0.8},
        "tumour": {"1": 0.5},
        "mean of classes": {"1": 0.7, "2": 0.8},
    }


def test_of_several_test_sets_it_is_over_all_cases():
    cases = [case("1", "ClinicDB polyp", 0.9), case("2", "Kvasir polyp", 0.5), case("3", "Kvasir polyp", math.nan)]
    assert values_by_class(cases, "dice")["all cases"] == {"1": 0.9, "2": 0.5}


def test_single_class_has_no_mean():
    assert values_by_class([case("1", "liver", 0.9)], "dice") == {"liver": {"1": 0.9}}


def test_unknown_metric_is_refused():
    with pytest.raises(ValueError, match=r"`metric` must be one of \['dice'\], but got 'hd95'"):
        values_by_class([case("1", "liver", 0.9)], "hd95")
