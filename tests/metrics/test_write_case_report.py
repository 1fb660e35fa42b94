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

import csv
import json

import numpy as np
import pytest
import torch

from monai_kd.metrics import write_case_report

DETAILS = {
    "dice": torch.tensor([[0.5, 0.25], [1.0, torch.nan], [0.75, torch.nan]]),
    "rvd": np.array([[0.1, np.nan], [-0.2, np.nan], [0.3, np.nan]]),
}


def test_table_and_summary_of_numpy(tmp_path):
    report = write_case_report(tmp_path / "new", ["a", "b", "c"], DETAILS, ["liver", "tumour"])
    rows = list(csv.DictReader((tmp_path / "new" / "cases.csv").open()))
    assert rows[0] == {"case": "a", "class": "liver", "dice": "0.5", "rvd": "0.1"}
    assert rows[3] == {"case": "b", "class": "tumour", "dice": "", "rvd": ""}
    assert len(rows) == 6
    dice = [0.5, 1.0, 0.75]
    assert report["liver"]["dice"] == pytest.approx(
        {"n": 3, "empty": 0, "mean": np.mean(dice), "std": np.std(dice), "median": 0.75, "min": 0.5, "max": 1.0}
    )
    assert report["tumour"]["dice"]["empty"] == 2
    assert report["tumour"]["rvd"] == {
        "n": 0, "empty": 3, "mean": None, "std": None, "median": None, "min": None, "max": None
    }  # fmt: skip
    assert json.loads((tmp_path / "new" / "summary.json").read_text()) == report


def test_names_of_classes_default_to_numbers(tmp_path):
    assert list(write_case_report(tmp_path, ["a", "b", "c"], DETAILS)) == ["class1", "class2"]


def test_guards(tmp_path):
    with pytest.raises(ValueError, match=r"`dice` must have 2 cases x classes, but got shape \(3, 2\)"):
        write_case_report(tmp_path, ["a", "b"], DETAILS)
    with pytest.raises(ValueError, match=r"`class_names` must name the classes .*, but got \['liver'\] and \[2\]"):
        write_case_report(tmp_path, ["a", "b", "c"], DETAILS, ["liver"])
