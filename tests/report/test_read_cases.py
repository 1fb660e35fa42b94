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

from monai_kd.report import CaseMetrics, read_cases

HEAD = "case,class,dice,voe,rvd,label_voxels,pred_voxels\n"


def write(tmp_path, text):
    (tmp_path / "cases.csv").write_text(text)
    return tmp_path / "cases.csv"


def test_values_are_read(tmp_path):
    cases = read_cases(write(tmp_path, HEAD + "01,liver,0.9,0.18,-0.05,100,95\n01,tumour,,nan,,0,7\n"))
    assert cases[0] == CaseMetrics("01", "liver", {"dice": 0.9, "voe": 0.18, "rvd": -0.05}, 100, 95)
    assert (cases[1].label_voxels, cases[1].pred_voxels) == (0, 7)
    assert all(math.isnan(value) for value in cases[1].metrics.values())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("case,dice\n01,0.9\n", r"without \['class', 'label_voxels', 'pred_voxels'\]"),
        (HEAD, "but got no row"),
        (HEAD + "01,liver,0.9,0,0,1,1\n" * 2, r"one row for each class of a case, but got \[\('01', 'liver'\)\]"),
        (HEAD + "01,liver,good,0,0,1,1\n", "a number for each metric, but got .*'good'.* in line 2"),
        (HEAD + "01,liver,90,0,0,1,1\n", "`dice` must be 0 to 1, but got 90 in line 2 of .*; correct the line"),
        (HEAD + "01,liver,0.9,-0.1,0,1,1\n", "`voe` must be 0 to 1, but got -0.1 in line 2"),
        (HEAD + "01,liver,0.9\n", "a number for each metric"),
        (HEAD + "01,liver,0.9,0,0,1,1,1\n", "a number for each metric"),
    ],
)
def test_other_files_are_refused(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        read_cases(write(tmp_path, text))


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"`path` must be a cases\.csv"):
        read_cases(tmp_path / "cases.csv")


def test_byte_order_mark_of_a_spreadsheet(tmp_path):
    path = tmp_path / "cases.csv"
    path.write_text("case,class,dice,label_voxels,pred_voxels\n01,liver,0.9,80,82\n", encoding="utf-8-sig")
    assert read_cases(path)[0].case == "01"
