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

"""Any command line is right, or refused in one line: odd words in the place of those of commands that work."""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monai_kd import cli
from monai_kd.cli.arguments import bind, typed

COMMANDS = [
    "bundles list",
    "bundles copy small copied",
    "layers small --shape 1,1,8,8 --network teacher_def --depth 1",
    "cost small --shape 1,1,8,8 --networks network_def,teacher_def --device cpu --runs 1",
    "report first second --output page.html --title Title --bundle small --shape 1,1,8,8",
    "report first --bundle small --shape 1,1,8,8 --override {'network_def::in_channels':1}",
    "export small --formats onnx_of_another_kind --config inference --shape 1,1,8,8 --classes a,b",
]
NUMBERS = ["0", "-1", "1.5", "1e400", "nan", "1,", "1,1", "1,1,8,8,8", "()", "1,1,0,8", "99999999999999999999"]
TEXTS = ["", " ", "a\nb", "x" * 300, "\udcff", "~", "None", "False", "none", "first", "../..", "ä", "--", "-", "-x"]
CODE = ["{", "[]", "{}", "{[]:1}", "{1:2}", "{'num':1}", "{'network_def':3}", "{'num_classes':'a'}", "$1/0"]
FLAGS = ["--shape", "--output", "--help", "--nohelp", "--override={}", "--runs=2", "--shape=1,2,8,8", "--bundle=nope"]
WORDS = st.sampled_from([*NUMBERS, *TEXTS, *CODE, *FLAGS]) | st.text(max_size=5)


@st.composite
def command_lines(draw) -> list[str]:
    words = draw(st.sampled_from(COMMANDS)).split()
    for _ in range(draw(st.integers(1, 2))):
        place = draw(st.integers(1, len(words)))
        kind = draw(st.sampled_from(["replace", "insert", "remove"]))
        words[place : place + (kind != "insert")] = [] if kind == "remove" else [draw(WORDS)]
    return words


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Iterator[Path]:
    """A bundle of two small networks with weights, and two evaluations."""
    root = tmp_path_factory.mktemp("odd")
    for name in ("small/configs", "small/models", "first", "second"):
        (root / name).mkdir(parents=True)

    def network(channels: int) -> dict:
        return {"_target_": "torch.nn.Conv2d", "in_channels": 1, "out_channels": channels, "kernel_size": 3}

    image, pred = {"num_channels": 1, "spatial_shape": [8, 8]}, {"num_channels": 2}
    metadata = {"version": "0.1.0", "network_data_format": {"inputs": {"image": image}, "outputs": {"pred": pred}}}
    configs = {"metadata": metadata, "inference": {"network_def": network(2)}, "train": {"teacher_def": network(4)}}
    for name, content in configs.items():
        (root / "small" / "configs" / f"{name}.json").write_text(json.dumps(content))
    torch.save({"model": torch.nn.Conv2d(1, 2, 3).state_dict()}, root / "small" / "models" / "model.pt")
    rows = "case,class,dice,label_voxels,pred_voxels\n1,liver,0.9,80,82\n2,liver,0.8,80,82\n"
    for name in ("first", "second"):
        (root / name / "cases.csv").write_text(rows)
    before = Path.cwd()
    os.chdir(root)
    yield root
    os.chdir(before)


@settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(command_lines())
@pytest.mark.usefixtures("folder")
def test_command_line_is_right_or_refused_in_one_line(words):
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()) as shown:
        code = cli.main(words)
    if code == 0:
        assert shown.getvalue().strip()
        return
    lines = said.getvalue().splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    assert len(errors) == 1, lines
    assert lines[lines.index(errors[0]) + 1 :] in ([], ["(MONAI_KD_TRACEBACK=1 shows where)"])
    assert "Traceback" not in said.getvalue()


@pytest.mark.parametrize("command", COMMANDS[:-1])
@pytest.mark.usefixtures("folder")
def test_commands_work_as_they_are(command, tmp_path):
    assert cli.main(command.replace("copied", str(tmp_path / "copied")).split()) == 0


DEMO = st.sampled_from(["demo --output_dir out --seed 1 --epochs 2 --num_cases 10", "demo out 1 2 10"])


@settings(max_examples=200)
@given(DEMO, st.integers(1, 8), WORDS)
def test_demo_takes_numbers_alone(words, place, word):
    """It would generate data first, and train."""
    from monai_kd.cli.demo import demo

    given = words.split()
    given[place : place + 1] = [word]
    try:
        found = typed("demo", bind("demo", demo, given[1:]))
    except cli.UsageError:
        return
    found.apply_defaults()
    numbers = found.arguments["seed"], found.arguments["epochs"], found.arguments["num_cases"]
    assert all(type(number) is int and number >= 0 for number in numbers)
    assert type(found.arguments["output_dir"]) is str
