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

"""benchmarks/latency.py: the numbers that do not depend on the machine, and what happens where a way is missing."""

from __future__ import annotations

import csv
import importlib.util
import json
import runpy
import sys

import numpy as np
import pytest
import torch

from monai_kd.bundle.export_formats import why_not
from monai_kd.report import network_cost
from tests.bundles.journey import ROOT

spec = importlib.util.spec_from_file_location("latency_benchmark", ROOT / "benchmarks" / "latency.py")
benchmark = importlib.util.module_from_spec(spec)
spec.loader.exec_module(benchmark)

TEACHER = {"_target_": "Convolution", "spatial_dims": 2, "in_channels": 3, "out_channels": 16, "kernel_size": 9}
STUDENT = TEACHER | {"out_channels": 1, "kernel_size": 1}


def rows(path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_student_beside_teacher_in_each_way(tmp_path, capsys):
    """Three ways, two batches, two networks; the same logits, and the larger network takes longer."""
    path = tmp_path / "latency.csv"
    benchmark.latency([TEACHER, STUDENT], size=96, batch=(1, 4), variants="eager,channels_last,half", rounds=15,
                      output=str(path))  # fmt: skip
    table = rows(path)
    assert len(table) == 3 * 2 * 2
    for row in table:
        p50, p95, rate = (float(row[key]) for key in ("ms p50", "ms p95", "images/s"))
        assert 0 < p50 <= p95
        assert rate == pytest.approx(1000 * int(row["batch"]) / p50)
        assert float(row["difference"]) < (0.05 if row["variant"] == "half" else 1e-5)
        if row["network"].startswith("teacher"):
            assert float(row["of teacher"]) == 1
        elif row["variant"] == "eager":
            assert float(row["of teacher"]) < 0.8
    shown = capsys.readouterr().out
    cost = network_cost(benchmark.build(TEACHER), (1, 3, 96, 96), runs=1, warm_up=0)
    line = next(line for line in shown.splitlines() if line.startswith("teacher Convolution"))
    assert f"{cost.parameters:,}" in line
    assert f"{cost.flops / 1e9:.2f}" in line
    assert "left out" not in shown


@pytest.mark.slow
@pytest.mark.skipif(bool(why_not("onnx")), reason="needs onnx and onnxscript")
def test_onnxruntime_gives_the_same_logits(tmp_path):
    pytest.importorskip("onnxruntime")
    variants = ["onnx", *(["openvino"] if not why_not("openvino") else [])]
    benchmark.latency([STUDENT], size=16, batch=(1, 3), variants=variants, rounds=2, output=str(tmp_path / "l.csv"))
    table = rows(tmp_path / "l.csv")
    assert [(row["variant"], row["batch"]) for row in table] == [(v, b) for b in "13" for v in variants]
    assert all(float(row["difference"]) < 1e-4 for row in table)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is at hand")
def test_missing_way_is_left_out_with_its_reason(capsys):
    benchmark.latency([STUDENT], size=8, batch=1, variants="cuda_graph,eager", rounds=1)
    shown = capsys.readouterr().out
    assert "left out: cuda_graph, needs a CUDA device" in shown
    assert "eager" in shown


def test_networks_run_in_turns():
    """Each round holds all networks, forwards and backwards, so that a slow minute is everybody's."""
    seen = []
    runs = [lambda image, name=name: seen.append(name) for name in "abc"]
    times = benchmark.measure(runs, torch.zeros(1), rounds=3, warm_up=1)
    assert times.shape == (3, 3)
    assert "".join(seen) == "cbaabccbaabc"
    assert np.all(times > 0)


def test_percentiles_and_ratios_are_those_of_the_measured_times(monkeypatch):
    """Rounds of 1 to 100 ms of the teacher; the student takes half, of two images."""
    teacher = np.arange(1.0, 101.0)
    monkeypatch.setattr(benchmark, "measure", lambda *_: np.stack([teacher, teacher / 2], axis=1))
    networks = {"teacher": torch.nn.Identity(), "student": torch.nn.Identity()}
    first, second = benchmark.compare(networks, torch.zeros(2, 1, 4, 4), "eager", 100, 0)
    assert first == ["teacher", 50.5, pytest.approx(95.05), pytest.approx(2000 / 50.5), 1.0, 0.0]
    assert second == ["student", 25.25, pytest.approx(47.525), pytest.approx(2000 / 25.25), 0.5, 0.0]


def test_network_by_path_definition_and_bundle(tmp_path):
    assert type(benchmark.build("monai_kd.networks.nets.ENet")).__name__ == "ENet"
    assert type(benchmark.build(STUDENT)).__name__ == "Convolution"
    (tmp_path / "configs").mkdir()
    config = {"network_def": STUDENT, "teacher_def": TEACHER}
    (tmp_path / "configs" / "inference.json").write_text(json.dumps(config))
    assert benchmark.build(str(tmp_path)).conv.kernel_size == (1, 1)
    assert benchmark.build(f"{tmp_path}:teacher_def").conv.kernel_size == (9, 9)


def test_unknown_way_is_refused():
    with pytest.raises(ValueError, match="`variants` must be of eager, .*, but got onxx"):
        benchmark.latency([STUDENT], variants="eager,onxx")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rounds": 0}, "`rounds` must be whole numbers of at least 1, but got 0"),
        ({"batch": 0}, "`batch` must be whole numbers of at least 1, but got 0"),
        ({"batch": (1, "a")}, "`batch` must be .*, but got 1, 'a'"),
        ({"batch": ()}, "`batch` must be .*, but got none"),
        ({"size": -3}, "`size` must be .*, but got -3"),
        ({"warm_up": -1}, "`warm_up` must be whole numbers of at least 0, but got -1"),
        ({"channels": 2, "size": 8}, r"`size` and `channels` must suit teacher Convolution, but got \(1, 2, 8, 8\)"),
        ({"networks": "monai_kd.networks.nets.NoNet"}, "`networks` must be classes, .*, but got monai_kd.*NoNet"),
        ({"networks": []}, "`networks` must be one or several, but got none"),
        ({"output": "no/such/folder/table.csv"}, "`output` must be a file in a folder that is there, but got no/such"),
    ],
)
def test_wrong_argument_is_told_before_measuring(wrong, message, monkeypatch, capsys):
    monkeypatch.setattr(benchmark, "compare", lambda *_: pytest.fail("it measures"))
    with pytest.raises(ValueError, match=message):
        benchmark.latency(**{"networks": [STUDENT], "variants": "eager", **wrong})
    assert "Latency" not in capsys.readouterr().out


def test_error_is_one_line(monkeypatch):
    """A text as the code of an exit is printed as it is, and the exit is 1."""
    path = str(ROOT / "benchmarks" / "latency.py")
    monkeypatch.setattr(sys, "argv", [path, "--networks", "no_such_bundle"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(path, run_name="__main__")
    assert str(stop.value).startswith("error: `networks` must be classes, definitions or bundles, but got")
    assert len(str(stop.value).splitlines()) == 1
