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

"""What holds for the package as a whole: its cost to import, its names, its headers."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest
from monai.bundle.config_item import ComponentLocator
from packaging.version import Version

import monai_kd

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "monai_kd"
SOURCES = sorted(
    path for folder in ("monai_kd", "tests", "benchmarks", "tools") for path in (ROOT / folder).rglob("*.py")
)
KINDS = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
HEADER = (ROOT / "setup.py").read_text("utf-8").split("\n\n")[0]


def imported_after(statement: str) -> set[str]:
    """The top-level modules that a fresh interpreter holds after a statement."""
    code = f"{statement}; import sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def public_names() -> set[str]:
    """The short names of what configurations can name: public classes, and functions that a kind exports."""
    found = {name for kind in KINDS for name in importlib.import_module(f"monai_kd.{kind}").__all__}
    for module in pkgutil.walk_packages([str(PACKAGE)], "monai_kd."):
        if module.name.endswith("__main__") or ".trainers." in module.name:  # those are imported by nnU-Net
            continue
        for name, member in inspect.getmembers(importlib.import_module(module.name)):
            if inspect.isclass(member) and member.__module__.startswith("monai_kd.") and not name.startswith("_"):
                found.add(name)
    return found


def test_import_is_light():
    heavy = {"torch", "monai", "ignite", "numpy", "torchvision", "timm", "transformers", "onnx", "matplotlib"}
    assert not imported_after("import monai_kd") & heavy


def test_kinds_need_no_import_of_their_own():
    """``$monai_kd.data.find_volumes(...)`` in a bundle that says ``$import monai_kd``."""
    assert set(KINDS) <= set(monai_kd.KINDS)
    assert monai_kd.__getattr__("data") is importlib.import_module("monai_kd.data")
    with pytest.raises(AttributeError, match="module 'monai_kd' has no attribute 'lossses'"):
        _ = monai_kd.lossses


def test_monai_finds_its_own_classes_by_short_name():
    """``_target_: DiceMetric`` must go on meaning MONAI's, which MONAI looks for in all modules named monai*."""
    locator = ComponentLocator()
    assert locator.get_component_module_name("DiceMetric") == "monai.metrics.meandice"
    for name in public_names():
        places = locator.get_component_module_name(name)
        places = [places] if isinstance(places, str) else places or []
        assert [place for place in places if not place.startswith("monai_kd.")] == [], name


@pytest.mark.parametrize("kind", KINDS)
def test_all_is_there(kind):
    module = importlib.import_module(f"monai_kd.{kind}")
    assert len(set(module.__all__)) == len(module.__all__) > 0
    assert all(hasattr(module, name) for name in module.__all__)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_header_is_there(path):
    text = path.read_text("utf-8")
    assert not text or text.startswith(HEADER)


def test_version_is_that_of_the_changelog_or_ahead():
    released = re.findall(r"^## \[(\d+\.\d+\.\d+)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)
    assert re.fullmatch(r"\d+\.\d+\.\d+", monai_kd.__version__)
    assert not released or Version(monai_kd.__version__) >= Version(released[0])
