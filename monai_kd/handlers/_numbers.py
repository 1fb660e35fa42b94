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

"""Numbers that a user gives, by hand, in YAML or through a schedule."""

from __future__ import annotations

import math
from numbers import Real
from typing import Any

import torch

_RULES = {"": lambda number: True, ">= 0": lambda number: number >= 0, "> 0": lambda number: number > 0}


def as_number(name: str, value: Any, rule: str = ">= 0") -> float:
    """
    The value as a float.

    Args:
        name: what it is, for the error message.
        value: a number or a tensor of one element.
        rule: ``">= 0"``, ``"> 0"``, or ``""`` for any finite number.

    Raises:
        ValueError: when it is no number, not finite, or against the rule.

    Example::

        >>> as_number("`weight`", 1)
        1.0
    """
    is_number = isinstance(value, Real) or (isinstance(value, torch.Tensor) and value.numel() == 1)
    number = float(value) if is_number else math.nan
    if not (math.isfinite(number) and _RULES[rule](number)):
        remedy = (
            "; without quotes, and in YAML 1.0e-3 for 1e-3, which it reads as text" if isinstance(value, str) else ""
        )
        raise ValueError(f"{name} must be a finite number{rule and f' {rule}'}, but got {value!r}{remedy}.")
    return number
