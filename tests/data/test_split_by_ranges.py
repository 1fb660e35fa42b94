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

"""Splits by numbers, and test sets in one list."""

from __future__ import annotations

from monai_kd.data import join_test_sets, split_by_ranges

CASES = [{"case": f"{name}_{number}", "dataset": name} for name in ("A", "B-2") for number in range(1, 6)]


def names(cases: list[dict[str, str]]) -> list[str]:
    return [case["case"] for case in cases]


def test_both_ends_of_a_range_belong_to_it():
    ranges = {"train": {"A": [[1, 2], [5, 5]], "B-2": [[2, 3]]}, "test": {"A": [[3, 3]], "B-2": []}}
    found = split_by_ranges(CASES, ranges)
    assert names(found["train"]) == ["A_1", "A_2", "A_5", "B-2_2", "B-2_3"]
    assert names(found["test"]) == ["A_3"]


def test_sets_keep_their_names():
    found = join_test_sets({"first": CASES[:1], "second": CASES[5:6]})
    assert [(case["case"], case["dataset"]) for case in found] == [("A_1", "first"), ("B-2_1", "second")]
    assert CASES[0]["dataset"] == "A"
