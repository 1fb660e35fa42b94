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

"""Cells of CSV files are no formulas and are read back as they were."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from monai_kd.data.csv_rows import append_rows, from_cell, read_rows, to_cell, to_csv, write_rows
from monai_kd.handlers import CaseMetricsHandler
from monai_kd.report import read_cases

FORMULAS = [
    "=1+1",
    "+49",
    "-1+cmd|' /C calc'!A0",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "\uff1d1",
    "-5",
    "-",
    "'=1",
    "''@",
]
PLAIN = ["case_01", "'tis", "''", "", "a=b", "1-2", "ü", " =1"]
TEXTS = st.one_of(
    st.text().map(lambda text: text.replace("\0", "")),  # Python 3.10 reads no NUL
    st.text("'=+-@\t\r\n,\"a;"),
)
plain_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.parametrize("text", FORMULAS)
def test_formula_is_a_text(text):
    assert to_cell(text) == f"'{text}"
    assert from_cell(to_cell(text)) == text


@pytest.mark.parametrize("text", PLAIN)
def test_other_text_stays(text):
    assert to_cell(text) == from_cell(text) == text


@pytest.mark.parametrize("number", [-0.25, -3, 0.0, 1e-9, math.inf, -math.inf])
def test_number_stays(number):
    assert to_cell(number) == number
    assert to_csv([[number]]) == f"{number}\n"


def test_undefined_number_is_empty():
    assert to_csv([["a", math.nan, 1]]) == "a,,1\n"


@given(TEXTS)
@example("'=1")
def test_each_text_is_read_back_and_starts_no_formula(text):
    cell = to_cell(text)
    assert from_cell(cell) == text
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))


@plain_folder
@given(st.lists(TEXTS.filter(bool), min_size=1, max_size=5, unique=True), st.floats(-1, 0))
def test_cases_are_read_back(tmp_path, names, value):
    """What `CaseMetricsHandler` writes, `read_cases` reads."""
    rows = [{"case": name, "group": name, "class": name, "rvd": value} for name in names]
    rows = [row | {"label_voxels": 3, "pred_voxels": 4} for row in rows]
    CaseMetricsHandler(tmp_path, ["liver"])._replace("cases.csv", rows)
    found = read_cases(tmp_path / "cases.csv")
    assert [case.case for case in found] == [f"{name}/{name}" for name in names]
    assert [case.class_name for case in found] == [f"{name} {name}" for name in names]
    assert {case.metrics["rvd"] for case in found} == {value}


def test_name_of_a_file_that_is_no_utf8_is_read_back(tmp_path):
    name = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    write_rows(tmp_path / "a.csv", [["case"], [name]])
    assert read_rows(tmp_path / "a.csv") == (["case"], [(2, {"case": name})])


def test_mark_that_a_spreadsheet_puts_first_is_no_part_of_a_name(tmp_path):
    write_rows(tmp_path / "a.csv", [["case", "class"], ["=a", "liver"]])
    plain = (tmp_path / "a.csv").read_bytes()
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbf" + plain)
    assert read_rows(tmp_path / "a.csv")[1] == [(2, {"case": "=a", "class": "liver"})]


class TestAppend:
    def rows(self, path: Path) -> list[list[str]]:
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.reader(file))

    def test_rows_follow(self, tmp_path):
        path = tmp_path / "a.csv"
        write_rows(path, [["frame", "pixels"]])
        append_rows(path, [["=a", 1], ["b", 2]])
        assert self.rows(path) == [["frame", "pixels"], ["'=a", "1"], ["b", "2"]]

    def test_full_disk_leaves_whole_rows(self, tmp_path, full_disk):
        path = tmp_path / "a.csv"
        write_rows(path, [["frame"], ["a"]])
        with full_disk(100), pytest.raises(OSError, match="File too large"):
            append_rows(path, [["b" * 60], ["c" * 60]])
        assert self.rows(path) == [["frame"], ["a"]]

    def test_file_that_is_gone_is_not_begun_without_a_head(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            append_rows(tmp_path / "a.csv", [["b"]])
