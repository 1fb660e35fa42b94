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
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import monai_kd

ROOT = Path(__file__).resolve().parents[1]
# the distribution that holds a module, where the names differ
DISTRIBUTIONS = {
    "ignite": "pytorch-ignite",
    "yaml": "pyyaml",
    "skimage": "scikit-image",
    "jinja2": "Jinja2",
    "PIL": "pillow",
}


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
    """The module stands alone, so that the installed one can be run beside the checkout's."""
    zipfile.ZipFile(wheel).extractall(tmp_path)
    locate = runpy.run_path(str(tmp_path / "monai_kd" / "bundle" / "locate.py"))
    assert locate["locate_bundle"]("mine") == tmp_path / "monai_kd" / "bundles" / "mine"


@pytest.mark.slow
def test_source_distribution_holds_what_is_versioned(tmp_path):
    """Bundles, docs, tutorials, benchmarks and tests; no weights, no notes of git or of the continuous integration."""
    leave = shutil.ignore_patterns("__pycache__", "models", "eval", "cache", "runs", "*.pt", ".*")
    folders = ("monai_kd", "bundles", "bundles_src", "benchmarks", "docs", "tests", "tools", "tutorials")
    for name in folders:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=leave)
    for name in ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md", "Makefile"):
        shutil.copy(ROOT / name, tmp_path)
    versioned = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    (tmp_path / "bundles" / "liver_tumor_ct_emkd" / "models").mkdir()
    (tmp_path / "bundles" / "liver_tumor_ct_emkd" / "models" / "model.pt").write_bytes(b"weights")
    words = [sys.executable, "setup.py", "-q", "sdist"]
    built = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    with tarfile.open(next((tmp_path / "dist").glob("*.tar.gz"))) as archive:
        held = {name.partition("/")[2] for name in archive.getnames()}
    assert versioned - held == set()
    assert not [name for name in held if name.endswith(".pt")]


def requirements(pattern: str) -> dict[str, Requirement]:
    """The requirements between quotes in the part of setup.py that a pattern matches."""
    part = re.search(pattern, (ROOT / "setup.py").read_text("utf-8"), re.S)
    found = map(Requirement, re.findall(r'"([A-Za-z0-9-]+[<>=][^"]+)"', part[0]))
    return {requirement.name.lower(): requirement for requirement in found}


def imports(nodes: Iterable[ast.AST]) -> set[str]:
    """The distributions that import statements name."""
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
    tops = {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names) - {"monai_kd"}
    return {DISTRIBUTIONS.get(top, top).lower() for top in tops}


@pytest.mark.parametrize("path", sorted((ROOT / "monai_kd").rglob("*.py")), ids=lambda path: path.stem)
def test_every_import_is_declared(path):
    """What an extra brings is imported where it is used, so that the rest works without; torchvision and timm never."""
    needed, extra = requirements(r"install_requires=.*?\]"), requirements(r"EXTRAS = .*?\n}")
    tree = ast.parse(path.read_text("utf-8"))
    of_nnunet = {"nnunetv2"} if path.parent.name == "trainers" else set()  # imported by nnU-Net alone
    assert imports(tree.body) - of_nnunet <= set(needed)
    assert imports(list(ast.walk(tree))) <= {*needed, *extra}


def test_requirements_dev_agree_with_setup():
    lines = (ROOT / "requirements-dev.txt").read_text("utf-8").splitlines()
    dev = {
        r.name.lower(): r for r in map(Requirement, filter(None, (line.partition("#")[0].strip() for line in lines)))
    }
    declared = requirements(r"EXTRAS = .*\Z")
    # OpenVINO and NNCF report their use over the network unless told not to, so nobody gets them unasked
    # nnU-Net would bring another torch; `make nnunet` installs it apart
    assert set(dev) == set(declared) - {"openvino", "nncf", "nnunetv2"}
    assert dev.pop("torch").specifier == "==2.13.0"
    assert {name: dev[name].specifier for name in dev} == {name: declared[name].specifier for name in dev}
    assert declared["torch"].specifier.contains("2.13.0")
