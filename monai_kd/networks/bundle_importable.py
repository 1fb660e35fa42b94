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

"""Importing what a MONAI bundle brings along as Python code."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType


@contextmanager
def bundle_importable(bundle: Path) -> Iterator[None]:
    """
    In its block the packages and modules in a bundle's folder, as ``scripts``, are found by their names. Behind it
    they are unknown again, so that two bundles with a ``scripts`` each do not take each other's. What was built in the
    block goes on working.

    Args:
        bundle: the folder.
    """
    names = {path.stem for path in bundle.glob("*.py")}
    names |= {path.parent.name for path in bundle.glob("*/*.py")}
    others = _loaded(names)
    for name in others:
        del sys.modules[name]
    sys.path.insert(0, str(bundle))
    try:
        yield
    finally:
        sys.path.remove(str(bundle))
        for name in _loaded(names):
            del sys.modules[name]
        sys.modules.update(others)


def _loaded(names: set[str]) -> dict[str, ModuleType]:
    """The modules of these names and below them."""
    return {name: module for name, module in sys.modules.items() if name.partition(".")[0] in names}
