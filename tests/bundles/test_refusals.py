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

"""What a run refuses, what it says and what it leaves behind."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigParser

from monai_kd.bundle import bundle_network
from monai_kd.bundle.prepare_console import root_cause
from tests.bundles.journey import BUNDLES, DATA, LIVER, SMALL, run_configs, write_data

TRAINING = "training the teacher (configs/train_teacher.yaml over configs/train.yaml) and then configs/train.yaml"
every_bundle = pytest.mark.parametrize("name", BUNDLES)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_data(LIVER, folder)
    return folder / DATA[LIVER]


def refused(root: Path, configs: list[str], name: str = LIVER, **override: Any) -> str:
    """The last line of a run that fails, without ``error: ``."""
    with pytest.raises((ValueError, RuntimeError)) as error:
        run_configs(BUNDLES[name], configs, bundle_root=str(root), **override)
    return root_cause(error.value)


def left_in(root: Path) -> set[str]:
    return {path.name for path in root.iterdir()} - {"cache"}  # which slices have what, for the next run


@pytest.mark.slow
def test_training_that_is_refused_leaves_nothing(data, tmp_path):
    """A batch larger than the data, and no epoch that is validated: known once trainer and evaluator are built."""
    options = SMALL[LIVER] | {"dataset_dir": str(data), "train::trainer::epoch_length": None}
    for override, sentence in (
        ({"batch_size": 400}, "ValueError: `batch_size` must not exceed the size of the training dataset, but got 400"),
        ({"val_interval": 3}, "ValueError: `val_interval` must not exceed `max_epochs`, but got 3 and 1"),
    ):
        said = refused(tmp_path, ["train.yaml", "train_student.yaml"], **options | override)
        assert said.startswith(sentence)
        assert left_in(tmp_path) == set()


@pytest.mark.slow
def test_distillation_that_is_refused_leaves_nothing(data, tmp_path):
    options = SMALL[LIVER] | {"dataset_dir": str(data), "teacher_ckpt": str(tmp_path / "given" / "teacher.pt")}
    assert "teacher.pt; train the teacher first" in refused(tmp_path, ["train.yaml"], **options)
    assert left_in(tmp_path) == set()
    (tmp_path / "given").mkdir()
    torch.save(bundle_network(LIVER, "teacher_def").state_dict(), tmp_path / "given" / "teacher.pt")
    for layers in ("student_layers", "teacher_layers"):
        said = refused(tmp_path, ["train.yaml"], **options | {layers: ["encoder.stem", "encoder.stage9"]})
        assert said.startswith("ValueError: `layer` must be a module of ")
        assert "but got `encoder.stage9`; the nearest names are " in said
        assert left_in(tmp_path) == {"given"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("configs", "remedy"),
    [
        (["train.yaml", "evaluate.yaml"], "the same command without configs/evaluate.yaml"),
        (["inference.json"], TRAINING),
    ],
)
def test_use_before_training_names_the_file_and_the_command(data, tmp_path, configs, remedy):
    override = {"dataset_dir": str(data)} | ({"workflow_type": "infer"} if configs == ["inference.json"] else {})
    said = refused(tmp_path, configs, **override)
    weights = tmp_path / "models" / "model.pt"
    assert said == f"FileNotFoundError: weights must be trained first, but got no file {weights}; {remedy} makes it."
    assert left_in(tmp_path) == set()


@every_bundle
@pytest.mark.parametrize("terminal", [True, False])
def test_progress_bars_are_for_terminals(name, terminal, monkeypatch):
    """A log would get a line a step."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    parser = ConfigParser()
    parser.read_config(str(BUNDLES[name] / "configs" / "train.yaml"))
    assert parser.get_parsed_content("progress") is terminal
