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

"""A number that may be written as a fraction."""

from __future__ import annotations

from fractions import Fraction
from typing import Any


def read_fraction(name: str, value: Any) -> float:
    """
    Read a number as ``0.25`` or ``1/4``.

    Args:
        name: what the user calls it, for the error.
        value: the number or a text.

    Raises:
        ValueError: when it is neither.

    Example::

        >>> read_fraction("student", "1/4")
        0.25
    """
    try:
        return float(Fraction(str(value).strip()))
    except (ValueError, ZeroDivisionError) as error:
        raise ValueError(f"`{name}` must be a number as 0.25 or 1/4, but got {value!r}.") from error
