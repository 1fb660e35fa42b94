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

"""What is wrong with many cases, in few lines."""

from __future__ import annotations

import re
from collections.abc import Mapping

SHOWN = 3  # of the cases that have one reason
VARIES = re.compile(r"\S*[/\\]\S*|\d+(\.\d+)?")  # paths and numbers


def problem_lines(problems: Mapping[str, str]) -> str:
    """
    The lines of an error. Of the cases whose reasons differ in paths and numbers alone the first three have a line
    each, and the others are counted and named.

    Args:
        problems: the reason for each case.

    Returns:
        the lines, each after a line break.

    Example::

        >>> print(problem_lines({name: "no mask" for name in "abcde"}))
        <BLANKLINE>
          a: no mask
          b: no mask
          c: no mask
          and 2 others for the same reason: d, e
    """
    kinds: dict[str, list[str]] = {}
    for case, reason in problems.items():
        kinds.setdefault(VARIES.sub("", reason), []).append(case)
    lines = []
    for cases in kinds.values():
        lines += [f"{case}: {problems[case]}" for case in cases[:SHOWN]]
        others = cases[SHOWN:]
        if others:
            lines.append(f"and {len(others)} others for the same reason: {', '.join(others)}")
    return "".join(f"\n  {line}" for line in lines)
