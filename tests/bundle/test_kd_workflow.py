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

"""The workflow that refuses what MONAI's would accept without a word."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from monai.bundle import run_workflow

from monai_kd.bundle import KDWorkflow

TRAIN = {
    "bundle_root": ".",
    "max_epochs": 2,
    "train": {"trainer": {"_target_": "dict", "max_epochs": "@max_epochs"}, "handlers": [{"_target_": "dict", "a": 1}]},
    "run": ["$open(@bundle_root + '/ran', 'w').write(str(@train::trainer))"],
}


@pytest.fixture
def config(tmp_path) -> str:
    """A bundle's training that writes its settings to a file."""
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "metadata.json").write_text(json.dumps({"version": "0.1.0"}))
    (tmp_path / "configs" / "train.yaml").write_text(yaml.safe_dump(TRAIN))
    (tmp_path / "configs" / "more.yaml").write_text("train::sampler: {_target_: dict}\nextra: 1\n")
    return str(tmp_path / "configs" / "train.yaml")


def ran(config: str | list[str], **override) -> str:
    workflow = KDWorkflow(config_file=config, logging_file=False, **override)
    workflow.initialize()
    workflow.run()
    return (Path(config if isinstance(config, str) else config[0]).parents[1] / "ran").read_text()


def test_writes_beside_the_bundle_from_anywhere(config, tmp_path, monkeypatch):
    monkeypatch.chdir("/")
    assert ran(config) == "{'max_epochs': 2}"
    (tmp_path / "elsewhere").mkdir()
    ran(config, bundle_root=str(tmp_path / "elsewhere"))
    assert (tmp_path / "elsewhere" / "ran").is_file()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "max_epoch",
            r"`max_epoch` must be an entry of [^,]*train.yaml, but got an unknown one; did you mean `max_epochs`\?",
        ),
        ("train::trainr::max_epochs", r"did you mean `train::trainer`\?"),
        ("train#handler", "did you mean `train::handlers`"),
        ("trian::trainer::max_epochs", "did you mean `train`"),
        ("max_epochs::more", r"`max_epochs::more` must be an entry"),
        ("zzz", r"`zzz` must be an entry of .*unknown one\.$"),
    ],
)
def test_unknown_override_is_refused_with_the_nearest(config, override, message):
    with pytest.raises(ValueError, match=message):
        ran(config, **{override: 1})


def test_section_is_not_what_a_value_was_meant_for(config):
    """`validate` is nearer to `date` than anything else, but holds no value."""
    Path(config).write_text(yaml.safe_dump(TRAIN | {"validate": {"dataset": 1}, "dataset_dir": "data"}))
    with pytest.raises(ValueError, match=r"an unknown one; did you mean `dataset_dir`\?$"):
        ran(config, dataset="elsewhere")
    with pytest.raises(ValueError, match=r"did you mean `validate`\?$"):
        ran(config, **{"valdate::dataset": 2})


@pytest.mark.parametrize("key", ["max_epochs", "train::trainer::max_epochs", "train#trainer#max_epochs"])
def test_known_override_is_taken(config, key):
    assert ran(config, **{key: 5}) == "{'max_epochs': 5}"


def test_what_may_be_new(config):
    """An argument of a component, an entry of a list, what MONAI reads itself, and what an overlay has brought."""
    assert ran(config, **{"train::trainer::amp": True}) == "{'max_epochs': 2, 'amp': True}"
    ran(config, **{"train::handlers::0::a": 2, "_meta_::version": "0.2.0", "imports": ["$import os"]})
    ran(config, initialize=[], finalize=[], **{"+imports": ["$import json"]})
    overlay = str(Path(config).with_name("more.yaml"))
    ran([config, overlay], **{"extra": 2, "train::sampler::b": 3})
    with pytest.raises(ValueError, match="`extra` must be an entry"):
        ran(config, extra=2)


def test_through_the_command_of_monai(config):
    run_workflow("monai_kd.bundle.KDWorkflow", config_file=config, logging_file=False, max_epochs=3)
    assert (Path(config).parents[1] / "ran").read_text() == "{'max_epochs': 3}"
    with pytest.raises(ValueError, match="did you mean `max_epochs`"):
        run_workflow("monai_kd.bundle.KDWorkflow", config_file=config, logging_file=False, max_epoch=3)


def test_missing_configuration_is_said(config):
    with pytest.raises(FileNotFoundError, match="Cannot find the config file: .*nothing.yaml"):
        KDWorkflow(config_file=[config, str(Path(config).with_name("nothing.yaml"))], logging_file=False)
