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

"""Plans of nnU-Net for a narrower network."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

LEAST = 8  # channels
SETTINGS = "monai_kd"  # the entry of the plans that the trainer reads


def shrink_plans(
    plans: Mapping[str, Any],
    factor: float,
    name: str,
    settings: Mapping[str, Any],
    blocks: float = 1.0,
) -> dict[str, Any]:
    """
    Divide the widths of all networks in nnU-Net's plans. All else stays, the preprocessed data too, so that nothing has
    to be preprocessed again.

    Args:
        plans: content of ``plans.json``.
        factor: of ``features_per_stage``, above 0 and below 1; never below 8 channels.
        name: of the new plans.
        settings: what the trainer of the student is told: the folder of the teacher and so on.
        blocks: of the number of blocks or convolutions a stage, above 0 and at most 1; at least 1 stays.

    Returns:
        the new plans.

    Raises:
        ValueError: when a number is out of range, or the plans have no widths.

    Example::

        >>> arguments = {"features_per_stage": [32, 64], "n_conv_per_stage": [2, 2]}
        >>> plans = {"configurations": {"2d": {"architecture": {"arch_kwargs": arguments}}}}
        >>> small = shrink_plans(plans, 0.25, "nnUNetPlans_kd4", {})
        >>> small["configurations"]["2d"]["architecture"]["arch_kwargs"]["features_per_stage"]
        [8, 16]
    """
    for key, value, most in (("student", factor, 1.0), ("blocks", blocks, 1.0 + 1e-9)):
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < most:
            raise ValueError(f"`{key}` must be above 0 and below 1, but got {value!r}.")
    small = deepcopy(dict(plans))
    changed = 0
    for configuration in small.get("configurations", {}).values():
        arguments = configuration.get("architecture", {}).get("arch_kwargs", {})
        if "features_per_stage" not in arguments:
            continue
        changed += 1
        arguments["features_per_stage"] = [_width(width, factor) for width in arguments["features_per_stage"]]
        for key in ("n_conv_per_stage", "n_blocks_per_stage", "n_conv_per_stage_decoder"):
            if key in arguments and blocks < 1:
                arguments[key] = [max(1, round(number * blocks)) for number in _as_list(arguments, key)]
    if not changed:
        raise ValueError(
            "`plans` must describe networks by features_per_stage, as nnU-Net since 2.5 does, but got none; plan again "
            "with a newer nnU-Net."
        )
    return small | {"plans_name": name, SETTINGS: dict(settings)}


def _width(width: int, factor: float) -> int:
    return min(width, max(LEAST, round(width * factor)))


def _as_list(arguments: Mapping[str, Any], key: str) -> list[int]:
    value = arguments[key]
    return [value] * int(arguments["n_stages"]) if isinstance(value, int) else list(value)
