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

from monai_kd.report import Spread, Table


@pytest.fixture
def table():
    columns = {"run": "", "n": "d", "dice": ".2f", "p": ".3g"}
    rows = [["student", 12, Spread(0.8149, 0.1), 0.03125], ["a|b", 9, Spread(math.nan, math.nan), math.nan]]
    return Table("Test", columns, rows, "A note.")


def test_text_is_aligned(table):
    assert table.to_text().splitlines() == [
        "Test",
        "run       n         dice       p",
        "-------  --  -----------  ------",
        "student  12  0.81 ± 0.10  0.0312",
        "a|b       9            -       -",
        "A note.",
    ]


def test_markdown_escapes_its_separator(table):
    assert table.to_markdown().splitlines() == [
        "| run     |  n |        dice |      p |",
        "|---------|---:|------------:|-------:|",
        "| student | 12 | 0.81 ± 0.10 | 0.0312 |",
        "| a\\|b    |  9 |           - |      - |",
    ]


def test_csv_is_not_rounded(table):
    assert table.to_csv() == "run,n,dice mean,dice std,p\nstudent,12,0.8149,0.1,0.03125\na|b,9,,,\n"


def test_joined_by_the_first_column():
    left = Table("Left", {"run": "", "dice": ".1f"}, [["b", 0.5], ["a", 0.6]], "One.")
    right = Table("Right", {"network": "", "MB": ".1f"}, [["a", 1.0], ["b", 2.0]], "Two.")
    joined = left.joined(right)
    assert joined == Table(
        "Left", {"run": "", "dice": ".1f", "MB": ".1f"}, [["b", 0.5, 2.0], ["a", 0.6, 1.0]], "One. Two."
    )


def test_join_without_a_partner_is_refused():
    with pytest.raises(ValueError, match=r"`other` must have a row for each of this table's, but got none for \['b'\]"):
        Table("Left", {"run": ""}, [["b"]]).joined(Table("Right", {"run": ""}, [["a"]]))


def test_row_of_another_length_is_refused():
    with pytest.raises(ValueError, match="`rows` must have 2 cells each, but got 1"):
        Table("Test", {"run": "", "n": "d"}, [["student"]])
