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

"""Overrides of a run are checked in one place, whichever command runs it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from monai.bundle import ConfigParser, ConfigWorkflow, run, run_workflow

from monai_kd.bundle.check_overrides import check_network_overrides, check_overrides
from monai_kd.bundle.locate import shipped_bundles

BUNDLES = shipped_bundles()
TRAIN = {
    "imports": ["$import torch", "$import monai_kd"],
    "bundle_root": ".",
    "dataset_dir": "/data",
    "ckpt_name": "model",
    "distil": True,
    "amp": "$@device.type == 'cuda'",
    "device": "$torch.device('cpu')",
    "max_epochs": 2,
    "learning_rate": 0.1,
    "classes": ["liver"],
    "train": {"trainer": {"_target_": "dict", "max_epochs": "@max_epochs"}},
    "settings": "$[@dataset_dir, @ckpt_name, @distil, @amp, @device, @learning_rate, @classes, @train::trainer]",
    "initialize": ["$monai_kd.bundle.prepare_console()"],
    "run": ["$open(@bundle_root + '/ran', 'w').write(repr(@settings))"],
}


def files(bundle: str, *names: str) -> list[str]:
    return [str(BUNDLES[bundle] / "configs" / name) for name in names]


def switches(config: str) -> list[str]:
    """Entries of a configuration that are, or evaluate to, a boolean."""
    parser = ConfigParser(ConfigParser.load_config_file(config))
    found = []
    for key, value in ConfigParser.load_config_file(config).items():
        if key in ("cases", "test_cases", "split", "held_out", "network", "soft_label_key"):
            continue
        computed = isinstance(value, str) and value.startswith(("$", "@"))
        computed |= isinstance(value, dict) and str(value.get("_target_", "")).startswith("monai_kd.bundle.")
        if isinstance(value, bool) or computed:
            try:
                found += [key] if isinstance(parser.get_parsed_content(key), bool) else []
            except Exception:  # it needs data
                continue
    return found


@pytest.mark.parametrize("name", BUNDLES)
def test_every_boolean_of_a_bundle_can_be_false(name):
    """Whether it is written in the configuration or computed by an expression."""
    config = files(name, "train.yaml")[0]
    names = switches(config)
    assert {"distil", "amp", "tensorboard", "progress"} <= set(names)
    assert check_overrides(config, dict.fromkeys(names, "false")) == dict.fromkeys(names, False)
    for key in ("distil", "progress"):
        with pytest.raises(ValueError, match="must be true or false, but got 'flase'; did you mean false"):
            check_overrides(config, {key: "flase"})


@pytest.mark.parametrize("name", BUNDLES)
def test_what_is_computed_has_a_type_too(name):
    config = files(name, "train.yaml")[0]
    given = {"device": "cpu", "val_interval": "2", "learning_rate": "1e-3", "teacher_ckpt": 20240131}
    if "teacher_ckpt" not in ConfigParser.load_config_file(config):
        given["ckpt_dir"] = given.pop("teacher_ckpt")
    expected = {"device": "$torch.device('cpu')", "val_interval": 2, "learning_rate": 0.001}
    found = check_overrides(config, given)
    assert found == expected | dict.fromkeys(given.keys() - expected, "20240131")


@pytest.mark.parametrize(
    "path", [path for folder in BUNDLES.values() for path in sorted((folder / "configs").glob("*.yaml"))],
    ids=lambda path: f"{path.parent.parent.name}-{path.stem}",
)  # fmt: skip
def test_configurations_that_ship_are_of_the_types_of_what_they_lie_over(path):
    below = path.with_name("inference.json" if path.stem.startswith("inference") else "train.yaml")
    between = [path.with_name("train_teacher2.yaml")] if "teacher2" in path.stem else []
    if path not in (below, *between) and path.stem != "resume":
        assert check_overrides([str(below), str(path)], {}) == {}


@pytest.fixture
def config(tmp_path) -> str:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "metadata.json").write_text(json.dumps({"version": "0.1.0"}))
    (tmp_path / "configs" / "train.yaml").write_text(yaml.safe_dump(TRAIN))
    return str(tmp_path / "configs" / "train.yaml")


def by_run(config: str, **override: Any) -> str:
    run(config_file=config, logging_file=False, bundle_root=str(Path(config).parents[1]), **override)
    return (Path(config).parents[1] / "ran").read_text()


def by_kd_workflow(config: str, **override: Any) -> str:
    run_workflow("monai_kd.bundle.KDWorkflow", config_file=config, logging_file=False, **override)
    return (Path(config).parents[1] / "ran").read_text()


def by_python(config: str, **override: Any) -> str:
    root = str(Path(config).parents[1])
    workflow = ConfigWorkflow(config, logging_file=False, bundle_root=root, **override)
    workflow.initialize()
    workflow.run()
    return (Path(config).parents[1] / "ran").read_text()


every_way = pytest.mark.parametrize("way", [by_run, by_kd_workflow, by_python])


def refusal(error: BaseException) -> str:
    from monai_kd.bundle.prepare_console import root_cause

    return root_cause(error) or str(error)


@every_way
def test_values_reach_the_run_in_their_types(config, way, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("USERPROFILE", "/home/me")
    given = {"distil": "false", "amp": "no", "device": "cpu", "learning_rate": "1e-3", "max_epochs": "3"}
    given |= {"dataset_dir": "~/data", "ckpt_name": 7}
    expected = "['/home/me/data', '7', False, False, device(type='cpu'), 0.001, ['liver'], {'max_epochs': 3}]"
    assert way(config, **given) == expected


@every_way
@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("distil", "fasle", "`distil` must be true or false, but got 'fasle'; did you mean false?"),
        ("max_epochs", 1.5, "`max_epochs` must be a whole number >= 1, but got 1.5; the nearest are 1 and 2."),
        ("train::trainer::max_epochs", 0, "`max_epochs` must be a whole number >= 1, but got 0"),
        ("ckpt_name", "a/b", "`ckpt_name` must be the name of a file without folder and suffix, but got 'a/b'"),
        ("classes", "liver", "`classes` must be a list, but got 'liver'; give ['liver'] or another one."),
    ],
)
def test_wrong_value_is_refused_before_anything_runs(config, way, key, value, message):
    if way is by_python and "::" in key:
        pytest.skip("MONAI does not keep what it was given; top-level entries are compared with the file")
    with pytest.raises((ValueError, RuntimeError)) as error:
        way(config, **{key: value})
    assert message in refusal(error.value)
    assert not (Path(config).parents[1] / "ran").exists()


@pytest.mark.parametrize("way", [by_run, by_kd_workflow])
def test_unknown_override_is_refused(config, way):
    with pytest.raises((ValueError, RuntimeError)) as error:
        way(config, max_epoch=1)
    assert "but got an unknown one; did you mean `max_epochs`?" in refusal(error.value)
    way(config, my_rate=3, learning_rate="$@my_rate / 10")


@pytest.mark.parametrize("way", [by_run, by_kd_workflow])
@pytest.mark.parametrize("word", ["--ckpt_name=2024_01", "--ckpt-name 2024_01"])
def test_name_of_digits_is_what_was_written(config, way, word, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["monai.bundle", "run", *word.split(), "--distil"])
    assert "'2024_01'" in way(config, ckpt_name=202401)


def test_none_is_refused_where_monai_ignores_it(config):
    """It would train to the default, as if nothing had been said."""
    with pytest.raises(RuntimeError) as error:
        by_run(config, ckpt_name=None)
    assert "`ckpt_name` must be a text, but got None; the default is 'model'." in refusal(error.value)


def test_configurations_over_the_first_are_checked(config, tmp_path):
    """YAML reads 1e-3, without a point, as a text."""
    over = tmp_path / "configs" / "over.yaml"
    over.write_text("learning_rate: 1e-3\ndistil: 'no'\n")
    assert check_overrides([config, str(over)], {}) == {"learning_rate": 0.001, "distil": False}
    assert check_overrides([config, str(over)], {"distil": "yes"}) == {"learning_rate": 0.001, "distil": True}
    last = tmp_path / "configs" / "last.yaml"
    last.write_text("learning_rate: 0.5\n")
    assert check_overrides([config, str(over), str(last)], {}) == {"distil": False}
    over.write_text("distil: 'maybe'\n")
    with pytest.raises(ValueError, match="`distil` must be true or false, but got 'maybe'"):
        check_overrides([config, str(over)], {})


def test_home_in_a_configuration_is_expanded(config, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("USERPROFILE", "/home/me")
    Path(config).write_text(yaml.safe_dump(TRAIN | {"dataset_dir": "~/data"}))
    assert by_run(config).startswith("['/home/me/data', 'model', True")


def test_entries_of_one_of_several_configurations(tmp_path):
    given = {"network_def#in_channels": "3", "num_classes": "3", "max_epochs": 2}
    names = files("liver_tumor_ct_emkd", "inference.json", "train.yaml")
    found = check_network_overrides(names, given, "the bundle")
    assert found == {"network_def::in_channels": 3, "num_classes": 3, "max_epochs": 2}
    with pytest.raises(ValueError, match="`max_epoch` must be an entry of the bundle, .* did you mean `max_epochs`"):
        check_network_overrides(names, {"max_epoch": 2}, "the bundle")
    with pytest.raises(ValueError, match="overrides must have ids of the bundle, but got 3"):
        check_network_overrides(names, {3: 2}, "the bundle")


@pytest.mark.parametrize("key", ["ckpt_dir", "output_dir", "bundle_root"])
def test_file_in_the_place_of_a_folder_is_refused(tmp_path, key):
    (tmp_path / "taken").touch()
    with pytest.raises(ValueError, match=f"`{key}` must be a folder, but got the file '.*taken'; give another one"):
        check_overrides(files("liver_tumor_ct_emkd", "train.yaml"), {key: str(tmp_path / "taken")})
    assert check_overrides(files("liver_tumor_ct_emkd", "train.yaml"), {key: str(tmp_path)}) == {key: str(tmp_path)}


def test_size_has_the_axes_of_the_network():
    config = files("liver_tumor_ct_emkd", "train.yaml")
    message = (
        r"`patch_size` must hold 2 numbers, one for each axis, but got \[64, 64, 64\]; the default is \[384, 384\]"
    )
    with pytest.raises(ValueError, match=message):
        check_overrides(config, {"patch_size": [64, 64, 64]})
    assert check_overrides(config, {"patch_size": [64, 32]}) == {"patch_size": [64, 32]}


def test_error_names_what_was_given_and_not_what_it_refers_to():
    with pytest.raises(ValueError, match="`decay_epochs` must be a whole number >= 1, but got 0; the default is 60"):
        check_overrides(files("liver_tumor_ct_emkd", "train.yaml"), {"decay_epochs": 0})
