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

"""What two sets of settings do not have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

MOST = 8  # differences that are told


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """
    What two sets of settings do not have in common, in words; empty where they are equal. A section
    of one, as ``rate::_target_``, of which the other has a value, as ``rate``, is told once.

    Example::

        >>> differences({"rate": 0.1, "seed": 0}, {"rate": 0.2, "seed": 0})
        'rate 0.1 and not 0.2'
    """
    found, wanted = _without_sections(found, wanted), _without_sections(wanted, found)
    wanted = dict.fromkeys(found) | wanted
    pairs = {name: (found.get(name), value) for name, value in wanted.items()}
    said = [f"{name} {old!r} and not {new!r}" for name, (old, new) in pairs.items() if old != new]
    return ", ".join(said[:MOST]) + (f" and {len(said) - MOST} more" if len(said) > MOST else "")


def _without_sections(settings: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with the first entry alone of a section of which the other settings have a value."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        parts = key.split("::")
        above = ["::".join(parts[:depth]) for depth in range(1, len(parts))]
        found.setdefault(next((each for each in above if each in other), key), value)
    return found
