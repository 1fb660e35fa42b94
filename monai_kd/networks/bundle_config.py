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

"""Reading the configurations of a MONAI bundle without building anything."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

# evaluate is an overlay of train, which holds nothing that stands alone
CONFIGS = [f"{stage}.{suffix}" for stage in ("inference", "train") for suffix in ("json", "yaml", "yml")]


def entry(config: Any, identifier: str) -> Any:
    """The raw content of an id; None if there is none."""
    for part in identifier.replace("#", "::").split("::"):
        if isinstance(config, list):
            config = config[int(part)] if part.isdigit() and int(part) < len(config) else None
        else:
            config = config.get(part) if isinstance(config, Mapping) else None
    return config


def components(config: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """The ``_target_`` blocks of a configuration with their ids."""
    if isinstance(config, Mapping):
        if "_target_" in config:
            yield path, dict(config)
        items: Any = config.items()
    else:
        items = enumerate(config) if isinstance(config, list) else ()
    for key, value in items:
        yield from components(value, f"{path}::{key}" if path else str(key))


def inference_loader(folder: Path) -> tuple[Path, str] | None:
    """
    The file that a bundle's configuration for inference loads, and the name of the network in it.

    Args:
        folder: the bundle.
    """
    for name in CONFIGS:
        file = folder / "configs" / name
        if not name.startswith("inference") or not file.is_file():
            continue
        parser = ConfigParser()
        parser.read_config(str(file))
        parser["bundle_root"] = str(folder)
        for key, block in components(deepcopy(parser.get())):
            loads = str(block["_target_"]).endswith("CheckpointLoader")
            if loads and isinstance(block.get("load_dict"), Mapping):
                path = Path(str(parser.get_parsed_content(f"{key}::load_path")))
                return path if path.is_absolute() else folder / path, next(iter(block["load_dict"]))
    return None
