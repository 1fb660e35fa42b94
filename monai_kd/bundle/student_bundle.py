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

"""Writing the bundle of a student: that of its teacher, with another network."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from monai.bundle import ConfigParser

from monai_kd.bundle.bundle_parts import BundleParts
from monai_kd.data.write_aside import folder_aside, replace_file
from monai_kd.networks.bundle_config import entry

LEFT_OUT = ("models", "eval", "results", "cache", "__pycache__", ".git", "large_files.yml")
COPIED = ("configs", "docs", "scripts")


def write_student_bundle(
    parts: BundleParts,
    block: Mapping[str, Any],
    output: Path,
    facts: Mapping[str, Any],
    record: Mapping[str, str],
) -> None:
    """
    Copy a bundle without its weights and results, and describe the student's network in all of its configurations. The
    copy is an ordinary bundle, which trains, evaluates and predicts by ``python -m monai.bundle run``.

    The folder is there as a whole or not at all. The teacher's folder is only read. The network's block is replaced in
    each configuration that has it; all else, comments too, stays as it was.

    Args:
        parts: of the teacher's bundle.
        block: arguments of the student's network.
        output: the new folder.
        facts: what the metadata says of the distillation, under ``distillation``.
        record: texts that the folder holds besides, by the name of their file.

    Raises:
        FileExistsError: when the folder is there and not empty.
    """
    if output.exists() and any(output.iterdir()):
        raise FileExistsError(f"`output` must be a new or an empty folder, but got {output}, which holds files.")
    with folder_aside(output) as aside:
        _write(parts, block, aside, facts)
        for name, text in record.items():
            (aside / name).write_text(text, encoding="utf-8")


def _write(parts: BundleParts, block: Mapping[str, Any], output: Path, facts: Mapping[str, Any]) -> None:
    for source in sorted(parts.folder.iterdir()):
        _take(source, output / source.name)
    (output / "models").mkdir(exist_ok=True)
    own = student_block(parts, block)
    for file in sorted((output / "configs").iterdir()):
        if file.suffix in (".json", ".yaml", ".yml") and file.name != "metadata.json":
            _replace_block(file, parts.network, own)
    _describe(output, parts, facts)


def student_block(parts: BundleParts, block: Mapping[str, Any]) -> dict[str, Any]:
    """
    The student's network as its configurations describe it: the teacher's block, with its references, and the values
    that are others. An argument that was changed by an override is written with its value.

    Args:
        parts: of the teacher's bundle.
        block: all arguments of the student's network.
    """
    before = parts.own_block
    same_class = before is not None and block.get("_target_") == before.get("_target_")
    if before is None or not same_class or "_target_" not in parts.file_block:
        return dict(block)
    changed = {key: value for key, value in block.items() if before.get(key) != value}
    return {key: value for key, value in parts.file_block.items() if key in block} | changed


def _take(source: Path, target: Path) -> None:
    """Copy what belongs to a bundle; refer to folders of data, which may be large."""
    if source.name in LEFT_OUT:
        return
    if not source.is_dir():
        shutil.copy2(source, target)
    elif source.name in COPIED or any(source.glob("*.py")):
        shutil.copytree(source, target, ignore=shutil.ignore_patterns(*LEFT_OUT))
    else:
        target.symlink_to(source, target_is_directory=True)


def _replace_block(file: Path, network: str, block: Mapping[str, Any]) -> None:
    """Put the student's block in the place of the network's, where a configuration has one."""
    content = ConfigParser.load_config_file(str(file))
    if not isinstance(content, Mapping) or not isinstance(entry(content, network), Mapping):
        return
    if file.suffix == ".json":
        parser = ConfigParser(dict(content))
        parser[network] = dict(block)
        replace_file(file, json.dumps(parser.get(), indent=4, ensure_ascii=False) + "\n")
        return
    text = file.read_text("utf-8")
    written = yaml.safe_dump({network: dict(block)}, sort_keys=False, default_flow_style=None)
    pattern = re.compile(rf"^{re.escape(network)}:.*\n(?:(?:[ \t#].*)?\n|-.*\n)*?(?=^[^\s#-]|\Z)", re.M)
    fresh, number = pattern.subn(lambda match: written + "\n", text, count=1)
    if number != 1 or entry(yaml.safe_load(fresh), network) != dict(block):
        raise ValueError(
            f"`{network}` of {file} must be a block at the start of a line, which can be replaced; describe the "
            "network so, or in JSON."
        )
    replace_file(file, fresh)


def _describe(output: Path, parts: BundleParts, facts: Mapping[str, Any]) -> None:
    """The metadata and the page of the student."""
    file = output / "configs" / "metadata.json"
    name = parts.folder.name
    if file.is_file():
        meta = json.loads(file.read_text("utf-8"))
        meta["name"] = f"{meta.get('name', name)} (student)"
        meta["distillation"] = dict(facts)
        replace_file(file, json.dumps(meta, indent=4, ensure_ascii=False) + "\n")
    page = output / "docs" / "README.md"
    before = page.read_text("utf-8") if page.is_file() else ""
    page.parent.mkdir(exist_ok=True)
    ratio = facts["parameters"] / facts["teacher_parameters"]
    replace_file(
        page,
        f"# A student of {name}\n\n"
        f"This bundle holds a smaller network: {facts['parameters']:,} parameters, {ratio:.1%} of those of its "
        f"teacher. It was distilled from the bundle `{name}` with monai_kd. All commands below work as they stand. "
        f"What is said of scores below is the teacher's.\n\n{before}",
    )
