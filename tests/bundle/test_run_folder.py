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

"""Folders of tasks and folds."""

from __future__ import annotations

import pytest

from monai_kd.bundle import in_folder, run_folder


@pytest.mark.parametrize(
    ("task", "fold", "expected"),
    [
        ("tumor", 0, "a/models"),
        ("tumor", 2, "a/models/fold2"),
        ("organ", 0, "a/models/organ"),
        ("multi", 1, "a/models/multi/fold1"),
    ],
)
def test_each_run_has_its_own(task, fold, expected):
    assert run_folder("a", "models", task, fold) == expected


def test_in_folder():
    assert in_folder("a/models", "teacher", ".pt") == "a/models/teacher.pt"
    assert in_folder("a", "eval") == "a/eval"
