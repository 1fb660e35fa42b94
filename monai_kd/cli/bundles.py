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

"""The verb ``bundles`` of the command line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from monai_kd.bundle.locate import locate_bundle, shipped_bundles

# what a run leaves behind, never part of a bundle that ships
PRODUCED = shutil.ignore_patterns("models", "eval", "cache", "mlruns", "__pycache__")


def bundles(action: str = "list", name: str = "", folder: str = "") -> str:
    """
    List the bundles that ship with monai_kd, or copy one to work on: ``bundles copy NAME FOLDER``.

    Args:
        action: ``list``, or ``copy``.
        name: for ``copy``, the bundle.
        folder: for ``copy``, the folder that becomes the bundle; it must not exist yet or be empty.

    Returns:
        what was found or done, one line each.

    Raises:
        ValueError: for another action, or for ``copy`` without a name and a folder.
        FileNotFoundError: when there is no such bundle.
        FileExistsError: when the folder holds something already; nothing is ever overwritten.

    Example::

        >>> from monai_kd.cli.bundles import bundles
        >>> bundles("copy", "no_such_bundle", "here")
        Traceback (most recent call last):
        FileNotFoundError: `bundle` must be a folder with configs/ or the name of a shipped bundle, ...
    """
    if action == "list":
        return "\n".join(_describe(path) for path in shipped_bundles().values()) or "no bundles are installed"
    if action != "copy":
        raise ValueError(f"`action` must be list or copy, but got {action!r}.")
    if not name or not folder:
        raise ValueError(f"`bundles copy` needs a name and a folder, but got {name!r} and {folder!r}.")
    source, target = locate_bundle(name), Path(folder).resolve()
    if target.is_relative_to(source):
        raise ValueError(f"`folder` must lie outside the bundle that is copied, but got {target}.")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise FileExistsError(
            f"`folder` must be new or empty, but got {target}; choose another, nothing is overwritten."
        )
    from monai_kd.data.write_aside import folder_aside  # which needs torch

    with folder_aside(target) as aside:  # half a bundle would be in the way of the next try
        shutil.copytree(source, aside, ignore=PRODUCED, copy_function=shutil.copyfile, dirs_exist_ok=True)
    return f"copied {source.name} to {target}"


def _describe(folder: Path) -> str:
    metadata = json.loads((folder / "configs" / "metadata.json").read_text("utf-8"))
    return f"{folder.name}  {metadata['version']}  {metadata.get('description', '')}\n    {folder}"
