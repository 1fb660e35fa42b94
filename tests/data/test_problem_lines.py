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

from __future__ import annotations

from monai_kd.data.problem_lines import problem_lines


def test_reasons_that_differ_in_paths_and_numbers_are_one():
    problems = {f"case{n}": f"values from 0 to {n}.5 in /data/{n}.png ({n} x 3)" for n in range(5)} | {"x": "no mask"}
    assert problem_lines(problems).splitlines()[1:] == [
        "  case0: values from 0 to 0.5 in /data/0.png (0 x 3)",
        "  case1: values from 0 to 1.5 in /data/1.png (1 x 3)",
        "  case2: values from 0 to 2.5 in /data/2.png (2 x 3)",
        "  and 2 others for the same reason: case3, case4",
        "  x: no mask",
    ]
