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

"""The bundles that are committed are those that their source gives, and they are easy to read."""

from __future__ import annotations

import re
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jinja2 import UndefinedError

from tests.bundles.journey import BUNDLES, ROOT

TOOL = runpy.run_path(str(ROOT / "tools" / "build_bundles.py"))
SECTIONS = ["data", "networks", "objective", "training", "evaluation"]


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("bundles")
    TOOL["build_bundles"](folder)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    """What ships of the bundles in a folder."""
    found = [path for path in folder.glob("*/*/*") if path.parent.name in ("configs", "docs")]
    found += folder.glob("*/LICENSE")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def test_committed_bundles_are_those_of_the_source(built):
    own, committed = files(built), files(ROOT / "bundles")
    other = sorted(path for path in {*own, *committed} if own.get(path) != committed.get(path))
    assert other == [], f"edit bundles_src/ and not bundles/, then run: {TOOL['REMEDY']}"


def test_a_rebuilt_bundle_keeps_what_was_trained_in_it(tmp_path):
    weights = tmp_path / "liver_tumor_ct_emkd" / "models" / "model.pt"
    weights.parent.mkdir(parents=True)
    weights.touch()
    old = tmp_path / "liver_tumor_ct_emkd" / "configs" / "old.yaml"
    old.parent.mkdir()
    old.touch()
    TOOL["build_bundles"](tmp_path)
    assert weights.is_file()
    assert not old.exists()


def test_value_that_is_missing_is_an_error():
    name, values = next(TOOL["bundle_values"]())
    del values["max_epochs"]
    with pytest.raises(UndefinedError, match="max_epochs"):
        TOOL["files"](TOOL["environment"](), name, values)


def test_values_of_a_task_go_over_those_of_the_method():
    assert TOOL["merged"]({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 4}, "d": 5}) == {
        "a": {"b": 4, "c": 2},
        "d": 5,
    }


def test_paragraphs_are_filled_and_code_is_not():
    page = "# T\n\nshort\nlines\n\n- one\n  item\n- two\n\n```bash\na\n\nb\n```\n\n    c\n    d\n"
    expected = "# T\n\nshort lines\n\n- one item\n- two\n\n```bash\na\n\nb\n```\n\n    c\n    d"
    assert TOOL["filled"](page) == expected


@pytest.mark.parametrize("name", BUNDLES)
def test_train_config_is_read_in_sections(name):
    text = (BUNDLES[name] / "configs" / "train.yaml").read_text("utf-8")
    assert re.findall(r"^# -{40,} (\w+)$", text, re.M) == SECTIONS


def components(entry: Any) -> Iterator[dict[str, Any]]:
    if isinstance(entry, dict):
        if "_target_" in entry:
            yield entry
        entry = list(entry.values())
    for part in entry if isinstance(entry, list) else ():
        yield from components(part)


@pytest.mark.parametrize("name", BUNDLES)
def test_configurations_are_declared_and_not_programmed(name):
    """Fewer than 20 expressions a file, one key of a component a line."""
    for path in (BUNDLES[name] / "configs").glob("*.yaml"):
        text = path.read_text("utf-8")
        assert len(re.findall(r"(?m)^[^#\n]*?[:\-\[] ?[\"']?\$", text)) < 20, path
        assert "__import__" not in text
        assert "{_target_" not in re.sub(r"(?m)^#.*$", "", text), path
        assert list(components(yaml.safe_load(text))) or path.stem.startswith("train_"), path
