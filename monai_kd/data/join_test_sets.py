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

"""Several test sets in one list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

Case = dict[str, str]


def join_test_sets(cases: Mapping[str, Sequence[Case]]) -> list[Case]:
    """
    Join test sets. Each case keeps the name of its set, by which an evaluation groups scores.

    Args:
        cases: the cases of each set by its name.

    Returns:
        the cases in the order of the sets, with ``dataset`` as the name of their set.

    Example::

        >>> join_test_sets({"A": [{"case": "1"}], "B": [{"case": "2"}]})
        [{'case': '1', 'dataset': 'A'}, {'case': '2', 'dataset': 'B'}]
    """
    return [case | {"dataset": name} for name, of_set in cases.items() for case in of_set]
