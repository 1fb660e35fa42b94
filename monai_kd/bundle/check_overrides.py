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

"""What is put over a configuration: other configurations, and the values of a command line."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Mapping, Sequence
from copy import deepcopy
from difflib import get_close_matches
from functools import cached_property
from numbers import Real
from pathlib import Path
from typing import Any

from fire.parser import DefaultParseValue
from monai.bundle import ConfigParser, ConfigWorkflow, create_workflow, update_kwargs
from monai.bundle.utils import merge_kv
from monai.utils import ensure_tuple

from monai_kd.bundle.override_value import expand_home, is_code, override_value

# what MONAI reads itself, or any configuration may have
OPEN_KEYS = ("_meta_", "_requires_", "imports", "bundle_root", "initialize", "run", "finalize")
# what a workflow takes beside overrides
OPTIONS = (
    "meta_file",
    "logging_file",
    "init_id",
    "run_id",
    "final_id",
    "tracking",
    "workflow_type",
    "properties_path",
)
# what MONAI's experiment tracking takes among the overrides
TRACKING = ("tracking_uri", "experiment_name", "run_name", "save_execute_config")


def check_overrides(config_file: str | Sequence[str], override: Mapping[str, Any]) -> dict[str, Any]:
    """
    Refuse an override of something that the configuration does not have, or by something else than what is there.

    MONAI accepts both without a word: it trains for 60 epochs when told ``--max_epoch 1``, and distils when told
    ``--distil false``, which is the text "false".

    Args:
        config_file: the configuration, or several, the later over the earlier.
        override: the overrides by id, ``a::b`` or ``a#b``. An argument of a ``_target_`` may be new.

    Returns:
        the overrides by id, each of the type of what it replaces (:py:func:`override_value`), and those entries of the
        configurations that had to be brought to it.

    Raises:
        ValueError: for an unknown id, with the nearest ids, and for a value of another type or out of range.
    """
    files = [str(path) for path in ensure_tuple(config_file)]
    check_ids(ConfigParser.load_config_files(files), override, ", ".join(files))
    parser = ConfigParser(ConfigParser.load_config_files(files[:1]))
    changed = _homes(parser.get())
    for file in files[1:]:
        layer = ConfigParser.load_config_file(file)
        typed = _typed(parser, layer)
        changed = {key: value for key, value in changed.items() if key not in layer}
        changed |= {key: value for key, value in typed.items() if _differs(value, layer[key])}
        for key, value in layer.items():
            merge_kv(parser, key, typed.get(key, value))
    typed = _typed(parser, override)
    for key, value in typed.items():
        _check_axes(key, value, parser.get(key))
    return changed | dict(override) | typed


def check_network_overrides(files: Sequence[str], override: Mapping[str, Any], where: str) -> dict[str, Any]:
    """
    Check overrides of an entry that one of several configurations has, as inference or training.

    Args:
        files: the configurations, each for itself.
        override: the overrides by id.
        where: what they are called in the error.

    Returns:
        the overrides by id, with ``::`` between its parts, each of the type of what it replaces.

    Raises:
        ValueError: as :py:func:`check_overrides`.
    """
    configs = [ConfigParser.load_config_files([file]) for file in files]
    known: dict[str, Any] = {}
    for config in configs:
        known = config | known
    check_ids(known, override, where)
    typed = _typed(ConfigParser(known), override)
    return {"::".join(_path(key)): typed.get(key, value) for key, value in override.items()}


def check_ids(config: Mapping[str, Any], override: Mapping[str, Any], where: str) -> None:
    """
    Refuse an override of something that the configuration does not have, unless another override refers to it.

    Args:
        config: content of the configuration.
        override: the overrides by id.
        where: what the configuration is called in the error.

    Raises:
        ValueError: with the nearest ids.
    """
    code = " ".join(value for value in override.values() if isinstance(value, str) and is_code(value))
    for key in override:
        if not isinstance(key, str):
            raise ValueError(f"overrides must have ids of {where}, but got {key!r}.")
        path = _path(key)
        known: Any = config
        open_key = path[0] in OPEN_KEYS or re.search(rf"@{re.escape(path[0])}\b", code)
        for depth, part in enumerate([] if open_key else path):
            if isinstance(known, dict) and part in known:
                known = known[part]
            elif isinstance(known, list) or (isinstance(known, dict) and "_target_" in known):
                break
            else:
                names = list(known) if isinstance(known, dict) else []
                if depth == len(path) - 1:  # a value was meant, and no section as `validate`
                    names = [name for name in names if not _is_section(known[name])]
                nearest = get_close_matches(part, map(str, names), n=3, cutoff=0.5)
                ids = [f"`{'::'.join([*path[:depth], name])}`" for name in nearest]
                hint = f"; did you mean {' or '.join(ids)}?" if nearest else "."
                raise ValueError(f"`{key}` must be an entry of {where}, but got an unknown one{hint}")


def running_configuration() -> dict[str, Any] | None:
    """
    The configuration, with its overrides, of the MONAI workflow that is being initialized; None
    outside of one.
    """
    workflow = _caller(ConfigWorkflow.initialize)
    return None if workflow is None else workflow["self"].parser.get()


def check_run() -> None:
    """
    Check the overrides of the MONAI workflow that is being initialized, and bring them to their types.

    ``python -m monai.bundle run`` hands its configuration to nobody, so the workflow is found among the callers. One
    that checked its overrides itself (:py:class:`~monai_kd.bundle.KDWorkflow`) is left alone.

    Raises:
        ValueError: as :py:func:`check_overrides`.
    """
    workflow = _caller(ConfigWorkflow.initialize)
    if workflow is None or getattr(workflow["self"], "checks_overrides", False):
        return
    parser = workflow["self"].parser
    command = _caller(create_workflow)
    if command is not None and command["config_file"] is not None:
        given = update_kwargs(command["args_file"], ignore_none=False, **command["kwargs"])
        files = command["config_file"]
        known = (*OPTIONS, "config_file", *(TRACKING if given.get("tracking") else ()))
        override = {key: value for key, value in given.items() if key not in known}
    else:
        files, override = _differences(parser.get(), Path(workflow["self"].config_root_path))
    checked = check_overrides(files, override) if files else {}
    changed = {key: value for key, value in checked.items() if _differs(value, override.get(key))}
    if changed:
        parser.update(changed)
        parser.parse(reset=True)


def _caller(function: Any) -> dict[str, Any] | None:
    """The variables of a function that is running, that called this one."""
    frame = inspect.currentframe()
    while frame is not None and frame.f_code is not function.__code__:
        frame = frame.f_back
    return None if frame is None else dict(frame.f_locals)


def _differences(config: Mapping[str, Any], folder: Path) -> tuple[list[str], dict[str, Any]]:
    """The file in a folder that a configuration was probably read from, and what differs from it."""
    found = {}
    for path in [*sorted(folder.glob("*.json")), *sorted(folder.glob("*.yaml"))]:
        entries = ConfigParser.load_config_file(str(path))
        if set(entries) <= set(config):
            found[str(path)] = entries
    if not found:
        return [], {}
    file = max(found, key=lambda path: len(found[path]))
    return [file], {key: config[key] for key, value in found[file].items() if config[key] != value}


def _path(key: str) -> list[str]:
    """The parts of an id."""
    return key.lstrip("+").replace("#", "::").split("::")


def _is_section(entry: Any) -> bool:
    return isinstance(entry, dict) and "_target_" not in entry


def _is_function(component: Mapping[str, Any]) -> bool:
    """Whether a component is one of our functions, which stands for the value that it gives."""
    package, _, name = str(component["_target_"]).rpartition(".")
    return package == "monai_kd.bundle" and name.islower()


def _differs(value: Any, given: Any) -> bool:
    """Whether a value was changed: 8 is not "8", and True not 1."""
    return value is not given and (type(value) is not type(given) or repr(value) != repr(given))


def _homes(config: Mapping[str, Any]) -> dict[str, Any]:
    """Entries of a configuration that start with ``~``."""
    texts = {key: value for key, value in config.items() if isinstance(value, str) and value.startswith("~")}
    return {key: expand_home(value) for key, value in texts.items()}


def _typed(parser: ConfigParser, layer: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a layer by their ids, of the types of what lies below."""
    below = _Defaults(parser)
    typed = {}
    for key, value in layer.items():
        if key.startswith("+") or (_path(key)[0] in OPEN_KEYS and key != "bundle_root"):
            continue
        path, default = below.find("::".join(_path(key)), value)
        try:
            typed[key] = override_value(path, value, default, _written(key, value))
        except ValueError as error:
            if "::" in key:  # of a component: the setting that it refers to is named
                raise
            raise ValueError(str(error).replace(f"`{path}`", f"`{key}`", 1)) from None
    return typed


def _check_axes(key: str, value: Any, default: Any) -> None:
    """A size in 2D is none in 3D; overlays may change both, a single override may not."""
    if not (key.endswith("_size") and isinstance(value, (list, tuple)) and isinstance(default, (list, tuple))):
        return
    if len(value) != len(default):
        raise ValueError(
            f"`{key}` must hold {len(default)} numbers, one for each axis, but got {list(value)}; "
            f"the default is {list(default)}."
        )


class _Defaults:
    """What the entries of a configuration are."""

    def __init__(self, parser: ConfigParser) -> None:
        self.parser = parser

    def find(self, path: str, value: Any) -> tuple[str, Any]:
        """The id that a chain of references ends at, and what is there; of an expression what it gives."""
        if path.endswith("::epoch_length") and path not in self.parser:
            return path, 1  # of an engine; the bundles leave it out
        seen = set()
        default = self.parser.get(path)
        while isinstance(default, str) and re.fullmatch(r"@\w+(::\w+)*", default.replace("#", "::")):
            if path in seen:
                return path, None
            seen.add(path)
            path = default[1:].replace("#", "::")
            default = self.parser.get(path)
        if is_code(default) and (not isinstance(default, dict) or _is_function(default)):
            plain = value is None or isinstance(value, (str, Real))
            return path, self._evaluate(path) if plain and not is_code(value) else None
        return path, default

    def _evaluate(self, path: str) -> Any:
        try:
            return self._evaluated.get_parsed_content(path)
        except Exception:  # an expression may do anything, and need what is not there
            return None

    @cached_property
    def _evaluated(self) -> ConfigParser:
        return ConfigParser(deepcopy(self.parser.get()))


def _written(key: str, value: Any) -> str | None:
    """How the value of an id was written on the command line of this process."""
    words = [*sys.argv[1:], ""]
    for number, word in enumerate(words[:-1]):
        flag, equals, text = word.partition("=")
        if word.startswith("-") and flag.lstrip("-").replace("-", "_") == key:
            text = text if equals else words[number + 1]
            read = DefaultParseValue(text)
            if type(read) is type(value) and read == value:
                return text
    return None
