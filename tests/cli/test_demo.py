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

import json
import re

import nibabel
import numpy as np
import pytest
import torch

from monai_kd.bundle import demo_training
from monai_kd.cli.verbs import load_verb
from monai_kd.report import read_cases, values_by_class

demo = load_verb("demo")


class Nothing:
    def attach(self, engine):
        pass


@pytest.fixture
def tiny(monkeypatch, few_cases):
    """Epochs of two iterations, and cases that are generated once."""
    monkeypatch.setattr(demo_training, "ITERATIONS", 2)
    monkeypatch.setitem(demo.__globals__, "demo_cases", lambda *_: few_cases)


@pytest.mark.slow
def test_demo_says_first_and_last_what_was_gained(tmp_path, tiny, capsys, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    threads = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    lines = demo(str(tmp_path), epochs=1, num_cases=36).splitlines()
    assert threads == [1, 2]  # whatever the machine has, and as it was
    (page,) = tmp_path.glob("*/report.html")
    assert lines[-1] == str(page)
    assert lines[0] == lines[-2]
    assert lines[0].startswith("Distillation ")

    found = json.loads((page.parent / "demo.json").read_text("utf-8"))
    assert list(found) == ["teacher", "alone", "distilled", "seconds"]
    for name in ("teacher", "alone", "distilled"):
        cases = read_cases(page.parent / "eval" / name / "cases.csv")
        means = values_by_class(cases, "dice")["mean of classes"]
        assert len(means) == 6
        assert found[name] == pytest.approx(np.mean(list(means.values())), abs=1e-6)
        assert f"{name} {found[name]:.3f}" in lines[0]
    assert len({found[name] for name in ("teacher", "alone", "distilled")}) == 3

    text = page.read_text("utf-8")
    assert re.findall(r"<(h1|figure|table)", text) == ["h1", "figure", "table", "table", "table"]
    assert re.search("<h1>(.*)</h1>", text)[1] == lines[0]
    (mask,) = (page.parent / "dicom_masks").iterdir()
    assert nibabel.load(mask).shape == (64, 64, 20)
    printed = capsys.readouterr().out
    assert printed.count("epoch 1/1: loss ") == 3
    assert re.findall(r"^\[(\d)/7\]", printed, re.M) == list("1234567")


@pytest.mark.slow
def test_demo_without_distillation_says_that_nothing_was_gained(tmp_path, tiny, monkeypatch):
    monkeypatch.setitem(demo.__globals__, "distillation", lambda *_: Nothing())
    monkeypatch.setitem(demo.__globals__, "_segment_dicom", lambda *_: None)
    lines = demo(str(tmp_path), epochs=1, num_cases=36).splitlines()
    assert lines[0].startswith("Distillation gained nothing that is certain (+0.000 Dice): ")
    assert "Likely reason: " in lines[0]


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        ({"epochs": -1}, "`epochs` must be an integer >= 0, but got -1"),
        ({"epochs": "a"}, "`epochs` must be an integer >= 0, but got 'a'"),
        ({"seed": 1.5}, "`seed` must be an integer >= 0, but got 1.5"),
        ({"num_cases": 35}, "`num_cases` must be an integer >= 36, but got 35"),
    ],
)
def test_demo_refuses_wrong_numbers_before_it_writes(tmp_path, numbers, message):
    with pytest.raises(ValueError, match=message):
        demo(str(tmp_path / "new"), **numbers)
    assert not (tmp_path / "new").exists()
