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

"""Splits that are published as ranges of numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Case = dict[str, str]
Ranges = Sequence[Sequence[int]]


def split_by_ranges(cases: Sequence[Case], ranges: Mapping[str, Mapping[str, Ranges]]) -> dict[str, list[Case]]:
    """
    Split cases by the numbers in their names.

    Args:
        cases: the cases. The name of a case is ``<data set>_<number>``, and ``dataset`` its data
            set, as :py:func:`~monai_kd.data.endoscopy_cases` gives them.
        ranges: for each part, as ``train``, the ranges of each data set: first and last number.

    Returns:
        the cases of each part. A case in no range belongs to none.

    Example::

        >>> cases = [{"case": f"A_{number}", "dataset": "A"} for number in (1, 2, 3)]
        >>> parts = split_by_ranges(cases, {"train": {"A": [[1, 2]]}, "test": {"A": [[3, 3]]}})
        >>> [case["case"] for case in parts["train"]]
        ['A_1', 'A_2']
    """
    return {
        part: [case for case in cases if _lies_in(case, of_part[case["dataset"]])] for part, of_part in ranges.items()
    }


def _lies_in(case: Case, ranges: Ranges) -> bool:
    number = int(case["case"].split("_")[1])
    return any(first <= number <= last for first, last in ranges)
