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
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from filelock import FileLock

from tests.bundles.as_trained import AsTrained
from tests.bundles.journey import DATA, walk, write_data


@pytest.fixture(scope="session")
def walked(tmp_path_factory) -> Callable[[str], Path]:
    """The folder of a bundle after all commands of its README, walked once for all tests and all their processes."""
    base = tmp_path_factory.getbasetemp()
    shared = (
        base.parent if base.name.startswith("popen-") else base
    )  # what the processes of pytest-xdist have in common

    def folder_of(name: str) -> Path:
        folder = shared / f"walk_{name}"
        with FileLock(f"{folder}.lock"):
            if not (folder / "seconds.json").is_file():
                shutil.rmtree(folder, ignore_errors=True)  # of a walk that failed
                folder.mkdir()
                (folder / "seconds.json").write_text(json.dumps(walk(name, folder)))
        return folder

    return folder_of


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory) -> Callable[[str], Path]:
    """The folder of a bundle's data set in its published layout, generated and small."""

    @cache
    def folder_of(name: str) -> Path:
        folder = tmp_path_factory.mktemp(f"data_{name}")
        write_data(name, folder)
        return folder / DATA[name]

    return folder_of


@pytest.fixture(scope="session")
def trained(tiny_data) -> Callable[..., AsTrained]:
    """What a bundle trains with, by its name and overlays; parsed once for all tests that only read it."""

    @cache
    def parsed(name: str, *overlays: str) -> AsTrained:
        return AsTrained(name, tiny_data(name), *overlays)

    return parsed
