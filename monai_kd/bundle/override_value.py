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

"""A value of the command line, as the entry of a configuration takes it that it replaces."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from difflib import get_close_matches
from numbers import Real
from typing import Any, NamedTuple

import torch

SWITCHES = {"true": True, "yes": True, "on": True, "1": True}
SWITCHES |= {"false": False, "no": False, "off": False, "0": False}
AUTO = "auto"  # a weight that sets itself
FILES = ("_dir", "_ckpt", "_path", "_name", "_root")  # how names of files and folders end
MAY_BE_ZERO = ("num_workers", "cache_num")  # of which the default is more
SHARES = ("threshold", "fraction", "prob", "overlap")  # from 0 to 1
FOLDERS = ("bundle_root", "ckpt_dir", "log_dir", "output_dir")  # which a run writes to
SEVERAL_KINDS = ("window",)  # a name, or level and width
FILE_NAME = re.compile(r'[^./\\:*?"<>|\x00-\x1f][^/\\:*?"<>|\x00-\x1f]{0,99}')


class _Range(NamedTuple):
    """Where a number may lie: from `least`, which may be left out, to `most`."""

    least: float = -math.inf
    most: float = math.inf
    positive: bool = False

    def __contains__(self, number: Any) -> bool:
        return self.least <= number <= self.most and not (self.positive and number == 0)

    def __str__(self) -> str:
        if self.most < math.inf:
            return f" from {self.least:g} to {self.most:g}"
        if self.positive:
            return " > 0"
        return f" >= {self.least:g}" if self.least > -math.inf else ""


def override_value(key: str, value: Any, default: Any, text: str | None = None) -> Any:
    """
    Bring a value to the type of the one that it replaces, or refuse it.

    A text that says true or false becomes a boolean, a text that is a number becomes one, the folder 2024_01 stays a
    text, ``~`` becomes the home of the user, ``cpu`` a device. What a configuration evaluates (``$...``, ``@...``,
    ``%...``, a component with ``_target_``) is returned as it is, and so is what replaces None.

    Args:
        key: id of the entry, ``train::trainer::max_epochs``.
        value: what is to be put there.
        default: what is there.
        text: how the value was written on the command line, where that is known; fire reads 2024_01 as 202401.

    Raises:
        ValueError: when the value is not of the type, or out of range.

    Example::

        >>> override_value("distil", "False", True)
        False
        >>> override_value("batch_size", 1.5, 8)
        Traceback (most recent call last):
        ValueError: `batch_size` must be a whole number >= 1, but got 1.5; the nearest are 1 and 2.
    """
    key = re.sub(r"(::\d+)+$", "", key)  # an element of a list is what the list is of
    if is_code(value):
        return value
    if _name(key) in SEVERAL_KINDS or default is None:
        return expand_home(value)
    if "::" in key and isinstance(default, Real) and not isinstance(value, (str, Real)):
        return expand_home(value)  # an argument of a component may be of several kinds
    if isinstance(default, bool):
        return _boolean(key, value, default)
    if isinstance(default, Real) or (default == AUTO and _name(key) != "weights"):
        return _number(key, value, default)
    if isinstance(default, str) and not is_code(default):
        return _text(key, value, default, text)
    if isinstance(default, torch.device):
        return value if isinstance(value, torch.device) else f"$torch.device('{read_device(key, value)}')"
    value = expand_home(value)
    if "::" not in key:
        if isinstance(default, (list, tuple)):
            return _list(key, value, default)
        if isinstance(default, Mapping):
            _check_mapping(key, value, default)
    return value


def is_code(value: Any) -> bool:
    """Whether a configuration evaluates the value: an expression, a reference, a macro or a component."""
    if isinstance(value, str):
        return value.startswith(("$", "@", "%"))
    return isinstance(value, Mapping) and "_target_" in value


def expand_home(value: Any) -> Any:
    """Put the user's home in the place of a leading ``~``, which a shell leaves in ``--output_dir=~/masks``."""
    if isinstance(value, str):
        return os.path.expanduser(value)
    if type(value) in (list, tuple):
        return type(value)(map(expand_home, value))
    if type(value) is dict:
        return {name: expand_home(part) for name, part in value.items()}
    return value


def read_device(key: str, value: Any) -> torch.device:
    """
    Read a device that torch sees: ``cpu``, ``cuda:1``.

    Raises:
        ValueError: when torch has no such device.
    """
    try:
        device = torch.device(str(value) if isinstance(value, bool) else value)  # true would be cuda:1
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"`{key}` must be a device of torch, as cpu or cuda:1, but got {value!r}.") from error
    count = torch.cuda.device_count() if device.type == "cuda" else 1
    try:
        if (device.index or 0) < count:
            torch.empty(0, device=device)
            return device
        seen = f"{count or 'no'} CUDA device{'' if count == 1 else 's'}"
    except (RuntimeError, AssertionError, NotImplementedError):
        seen = "no such device"
    raise ValueError(f"`{key}` must be a device that torch sees, but got {value!r} and torch sees {seen}; give cpu.")


def _name(key: str) -> str:
    """The last part of an id."""
    return key.rpartition("::")[2]


def _boolean(key: str, value: Any, default: bool) -> bool:
    word = str(value).strip().lower()
    if word in SWITCHES:
        return SWITCHES[word]
    nearest = get_close_matches(word, ("true", "false"), n=1)
    hint = f"did you mean {nearest[0]}?" if nearest else f"the default is {str(default).lower()}."
    raise ValueError(f"`{key}` must be true or false, but got {value!r}; {hint}")


def _number(key: str, value: Any, default: Any) -> Any:
    name = _name(key)
    if value == AUTO and (name.endswith("weight") or default == AUTO):
        return value
    bounds = _range(key, default)
    whole = isinstance(default, int) and ("::" not in key or name == "epoch_length")
    rule = f"`{key}` must be a {'whole ' if whole else ''}number{bounds}, but got {value!r}"
    number: Any = _parse(value)
    plain = isinstance(number, Real) and not isinstance(number, bool)
    if not plain or not math.isfinite(number) or number not in bounds:
        raise ValueError(f"{rule}; the default is {default}.")
    if whole and number != int(number):
        sides = [side for side in (math.floor(number), math.ceil(number)) if side in bounds]
        raise ValueError(f"{rule}; the nearest {'are' if len(sides) > 1 else 'is'} {' and '.join(map(str, sides))}.")
    return int(number) if whole else number


def _range(key: str, default: Any) -> _Range:
    """The range of a number: what its name and its default say. An argument of a component checks itself."""
    name = _name(key)
    if name in SHARES:
        return _Range(0, 1)
    if default == AUTO:
        return _Range(0)
    if default < 0 or ("::" in key and name != "epoch_length"):
        return _Range()
    if isinstance(default, int):
        return _Range(0 if default == 0 or name in MAY_BE_ZERO else 1)
    return _Range(0, positive=default > 0 and not name.endswith("weight"))


def _parse(value: Any) -> Any:
    """The number that a text is, else the value itself."""
    for kind in (int, float) if isinstance(value, str) else ():
        try:
            return kind(value)
        except ValueError:
            pass
    return value


def _text(key: str, value: Any, default: str, text: str | None) -> Any:
    """A text as it was written; the name of a file is one that every file system takes."""
    name = _name(key)
    written = text is not None and not text.lstrip().startswith(("'", '"'))
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    elif value is not None and name.endswith(FILES) and written:
        value = text
    elif isinstance(value, (str, Real)):
        value = text if written else str(value)
    elif value is None or name.endswith(FILES):
        raise ValueError(f"`{key}` must be a text, but got {value!r}; the default is {default!r}.")
    else:
        return expand_home(value)
    if "#" in value:
        raise ValueError(f"`{key}` must not hold #, which MONAI reads as `::`, but got {value!r}.")
    if name.endswith(FILES) and default and not value.strip():
        raise ValueError(f"`{key}` must not be empty, but got {value!r}; the default is {default!r}.")
    if name in FOLDERS and os.path.isfile(os.path.expanduser(value)):
        raise ValueError(f"`{key}` must be a folder, but got the file {value!r}; give another one.")
    if name.endswith("_name") and (not FILE_NAME.fullmatch(value) or value.endswith(".pt")):
        raise ValueError(
            f"`{key}` must be the name of a file without folder and suffix, but got {value!r}; the default is "
            f"{default!r}."
        )
    return expand_home(value)


def _list(key: str, value: Any, default: Any) -> Any:
    """A list of the same kind of elements."""
    if isinstance(value, (str, bool, Real, Mapping)) or value is None:
        numbers = all(isinstance(each, Real) for each in default)
        remedy = [value] * (len(default) if numbers else 1)
        raise ValueError(f"`{key}` must be a list, but got {value!r}; give {remedy} or another one.")
    if not isinstance(value, (list, tuple)):
        return value
    if default and not value:
        raise ValueError(f"`{key}` must not be empty, but got {value!r}; the default is {list(default)}.")
    first = default[0] if default else None
    if isinstance(first, Real) or (isinstance(first, str) and not is_code(first)):
        return [override_value(key, each, first) for each in value]
    return list(value)


def _check_mapping(key: str, value: Any, default: Mapping[str, Any]) -> None:
    """Objects that Python code hands over are taken as they are."""
    if isinstance(value, (str, bool, Real, list, tuple)) or value is None:
        kind = "a component, as {'_target_': ...}" if "_target_" in default else "a dictionary"
        raise ValueError(f"`{key}` must be {kind}, or refer to one with @ or $, but got {value!r}.")
