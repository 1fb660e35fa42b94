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

"""What is installed: the requirements, and a wheel with everything in it."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import monai_kd

ROOT = Path(__file__).resolve().parents[1]
# the distribution that holds a module, where the names differ
DISTRIBUTIONS = {"ignite": "pytorch-ignite", "yaml": "pyyaml", "skimage": "scikit-image", "jinja2": "Jinja2"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """A wheel built from a copy of what is versioned, so that no build output lands in the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    leave = shutil.ignore_patterns("__pycache__", "models", "eval", "cache")
    for name in ("monai_kd", "bundles"):
        shutil.copytree(ROOT / name, folder / "source" / name, ignore=leave)
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "source")
    # a user's trained weights, which must stay at home
    (folder / "source" / "bundles" / "mine" / "configs").mkdir(parents=True)
    (folder / "source" / "bundles" / "mine" / "configs" / "metadata.json").write_text('{"version": "0.0.1"}')
    (folder / "source" / "bundles" / "mine" / "models").mkdir()
    (folder / "source" / "bundles" / "mine" / "models" / "model.pt").write_bytes(b"weights")
    pip = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-q",
        "-w",
        str(folder),
    ]
    built = subprocess.run([*pip, str(folder / "source")], capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return next(folder.glob("*.whl"))


@pytest.mark.slow
def test_wheel_holds_package_and_bundles(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    assert wheel.name.startswith(f"monai_kd-{monai_kd.__version__}-py3-none-any")
    source = wheel.parent / "source"
    modules = {str(path.relative_to(source)) for path in (source / "monai_kd").rglob("*.py")}
    assert modules <= names
    assert "monai_kd/report/report.html.j2" in names
    assert "monai_kd/bundles/mine/configs/metadata.json" in names
    for path in (source / "bundles").glob("*/*/*"):
        assert (f"monai_kd/{path.relative_to(source)}" in names) == (path.parent.name in ("configs", "docs"))
    assert not [name for name in names if name.endswith(".pt") or name.startswith("tests/")]


@pytest.mark.slow
def test_wheel_finds_its_bundles(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = "from monai_kd.bundle.bundles import bundles; print(bundles('copy', 'mine', 'copied'))"
    run = [sys.executable, "-c", code]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run(run, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "copied" / "configs" / "metadata.json").is_file()


def requirements(pattern: str) -> dict[str, Requirement]:
    """The requirements between quotes in the part of setup.py that a pattern matches."""
    part = re.search(pattern, (ROOT / "setup.py").read_text("utf-8"), re.S)
    found = map(Requirement, re.findall(r'"([A-Za-z0-9-]+[<>=][^"]+)"', part[0]))
    return {requirement.name.lower(): requirement for requirement in found}


def test_every_import_is_declared():
    declared = {*requirements(r"install_requires=.*?\]"), *requirements(r"EXTRAS = .*?\n}")}
    for path in (ROOT / "monai_kd").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and not node.level else []
            tops = {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names) - {"monai_kd"}
            assert {DISTRIBUTIONS.get(top, top).lower() for top in tops} <= declared, path


def test_requirements_dev_agree_with_setup():
    lines = (ROOT / "requirements-dev.txt").read_text("utf-8").splitlines()
    dev = {
        r.name.lower(): r for r in map(Requirement, filter(None, (line.partition("#")[0].strip() for line in lines)))
    }
    declared = requirements(r"EXTRAS = .*\Z")
    assert set(dev) == set(declared)
    assert dev.pop("torch").specifier == "==2.13.0"
    assert {name: dev[name].specifier for name in dev} == {name: declared[name].specifier for name in dev}
    assert declared["torch"].specifier.contains("2.13.0")
