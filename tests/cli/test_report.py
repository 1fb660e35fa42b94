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
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from monai_kd.cli.report import report
from monai_kd.report import OverlayCase, overlay


@pytest.fixture
def evaluations(tmp_path):
    """The folders that two evaluations of the same six cases leave behind."""
    for run, gain in (("alone", 0.0), ("distilled", 0.1)):
        rows = [f"{i},liver,{0.5 + i / 100 + gain},0.2,0.1,90,80" for i in range(6)]
        (tmp_path / run).mkdir()
        (tmp_path / run / "cases.csv").write_text(
            "\n".join(["case,class,dice,voe,rvd,label_voxels,pred_voxels", *rows])
        )
    picture = overlay([OverlayCase("1", np.zeros((8, 8)), np.eye(8, dtype=int))])
    (tmp_path / "distilled" / "overlay.png").write_bytes(picture)
    return tmp_path


def test_report_of_two_runs(evaluations):
    page = evaluations / "out" / "page.html"
    shown = report(str(evaluations / "alone"), str(evaluations / "distilled"), output=str(page))
    assert shown.endswith(f"report: {page}")
    assert "distilled  liver  6      +0.100   +0.100    +0.100  0.0312" in shown
    text = page.read_text("utf-8")
    assert text.count("<table>") == 2
    assert "distilled: overlay" in text


def test_report_of_one_run_has_no_test(evaluations):
    page = evaluations / "page.html"
    assert "Difference" not in report(str(evaluations / "alone"), output=str(page))
    assert page.read_text("utf-8").count("<table>") == 1


def test_two_runs_of_one_name_are_refused(evaluations):
    with pytest.raises(ValueError, match="`folders` must have different names"):
        report(str(evaluations / "alone"), str(evaluations / "out" / "alone"))


def test_folder_without_cases_is_refused(evaluations):
    with pytest.raises(FileNotFoundError, match=r"`path` must be a cases\.csv .*nothing"):
        report(str(evaluations / "nothing"))


def test_no_folder_is_refused():
    with pytest.raises(ValueError, match="`folders` must name at least one"):
        report()


def test_metrics_are_those_of_the_runs_and_sizes_those_of_the_bundle(tmp_path):
    for run, dice in (("teacher", 0.9), ("model", 0.8)):
        rows = [f"{i},{group},polyp,{dice},{dice - 0.1},90,80" for i, group in enumerate(("Kvasir", "ETIS"))]
        (tmp_path / run).mkdir()
        (tmp_path / run / "cases.csv").write_text(
            "\n".join(["case,group,class,dice,iou,label_voxels,pred_voxels", *rows])
        )
    folders = [str(tmp_path / "teacher"), str(tmp_path / "model")]
    options = {"output": str(tmp_path / "page.html"), "bundle": "liver_tumor_ct_emkd"}
    lines = report(*folders, **options, shape=(1, 1, 64, 64)).splitlines()
    head = next(i for i, line in enumerate(lines) if "M parameters" in line)
    assert [line.split() for line in lines[head + 2 : head + 4]] == [
        ["teacher", "22.14", "0.73", "0.900", "0.800", "0.900", "0.800"],
        ["model", "0.35", "0.06", "0.800", "0.700", "0.800", "0.700"],
    ]
    with pytest.raises(ValueError, match=r"`shape` must be .batch, channel, .spatial., as 1,3,352,352, but got \(\)"):
        report(*folders, **options)


class TestNetworks:
    """The size of a run is that of the network that was evaluated, whatever the run's name."""

    @staticmethod
    def sizes(folder: Path, evaluated: dict[str, tuple[str, int]], **options: Any) -> tuple[dict[str, list[str]], str]:
        for run, (network, parameters) in evaluated.items():
            (folder / run).mkdir(exist_ok=True)
            (folder / run / "cases.csv").write_text(
                "\n".join(["case,class,dice,label_voxels,pred_voxels", *(f"{i},liver,0.5,9,9" for i in range(6))])
            )
            (folder / run / "network.json").write_text(json.dumps({"network": network, "parameters": parameters}))
        options |= {"output": str(folder / "page.html"), "bundle": "liver_tumor_ct_emkd", "shape": (1, 1, 64, 64)}
        shown = report(*(str(folder / run) for run in evaluated), **options)
        lines = shown.splitlines()
        head = next(i for i, line in enumerate(lines) if "M parameters" in line)
        return {line.split()[0]: line.split()[1:] for line in lines[head + 2 : head + 2 + len(evaluated)]}, shown

    def test_are_told_by_the_evaluation(self, tmp_path):
        evaluated = {"teacher_1_only": ("ENet", 353_761), "large": ("RAUNet", 22_143_394)}
        found, shown = self.sizes(tmp_path, evaluated)
        assert found == {"teacher_1_only": ["0.35", "0.06", "0.500"], "large": ["22.14", "0.73", "0.500"]}
        assert "are not known" not in shown

    def test_that_the_bundle_does_not_have(self, tmp_path):
        found, shown = self.sizes(tmp_path, {"teacher": ("RAUNet", 22_143_523), "model": ("ENet", 353_761)})
        assert found == {"teacher": ["22.14", "-", "0.500"], "model": ["0.35", "0.06", "0.500"]}
        assert "The FLOPs of teacher are not known: they were evaluated with another network than liver" in shown

    def test_with_the_options_of_their_training(self, tmp_path):
        evaluated = {"teacher": ("RAUNet", 22_143_523), "model": ("ENet", 353_825)}  # three classes
        found, shown = self.sizes(tmp_path, evaluated, override={"num_classes": 3})
        assert found == {"teacher": ["22.14", "0.73", "0.500"], "model": ["0.35", "0.06", "0.500"]}
        assert "are not known" not in shown


def test_runs_without_a_common_metric_are_refused(evaluations):
    (evaluations / "other").mkdir()
    (evaluations / "other" / "cases.csv").write_text("case,class,iou,label_voxels,pred_voxels\n1,liver,0.5,9,9\n")
    with pytest.raises(ValueError, match="`folders` must have a metric in common"):
        report(str(evaluations / "alone"), str(evaluations / "other"), output=str(evaluations / "page.html"))


@pytest.fixture
def evaluated(tmp_path) -> str:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "cases.csv").write_text("case,class,dice,label_voxels,pred_voxels\n1,liver,0.9,80,82\n")
    return str(tmp_path / "model")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ({"num_clases": 3}, "`num_clases` must be an entry of a configuration of liver_tumor_ct_emkd, but got an "
                            "unknown one; did you mean `num_classes`"),
        ({"num_classes": "three"}, "`num_classes` must be a whole number >= 1, but got 'three'; the default is 2"),
        ({3: 3}, "`3` must be an entry of a configuration of liver_tumor_ct_emkd"),
    ],
)  # fmt: skip
def test_override_is_checked(evaluated, tmp_path, override, message):
    options = {"bundle": "liver_tumor_ct_emkd", "shape": (1, 1, 64, 64), "output": str(tmp_path / "page.html")}
    with pytest.raises(ValueError, match=message):
        report(evaluated, **options, override=override)
    assert not (tmp_path / "page.html").exists()


@pytest.mark.parametrize("text", ["not JSON", "[]", "{}", '{"network": "ENet", "parameters": "many"}'])
def test_network_of_another_form_is_named(evaluated, tmp_path, text):
    Path(evaluated, "network.json").write_text(text)
    options = {"bundle": "liver_tumor_ct_emkd", "shape": (1, 1, 64, 64), "output": str(tmp_path / "page.html")}
    with pytest.raises(ValueError, match="must hold a network.json with `network` and `parameters`, .*network.json: "):
        report(evaluated, **options)
