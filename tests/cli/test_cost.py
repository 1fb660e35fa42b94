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

import pytest

from monai_kd.cli.cost import cost


def test_student_and_teacher_side_by_side(small_bundle):
    shown = cost(str(small_bundle), shape=(1, 1, 8, 8), networks="network_def,teacher_def", runs=1)
    student, teacher = (
        next(line for line in shown.splitlines() if f" {name} " in line) for name in ("network_def", "teacher_def")
    )
    assert student.split()[2] == "20"
    assert teacher.split()[2] == "40"


def test_absent_device_is_refused(small_bundle, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ValueError, match="`device` must be a device that torch sees, but got 'cuda:0'"):
        cost(str(small_bundle), shape=(1, 1, 8, 8), device="cuda:0")


def test_no_bundle_is_refused():
    with pytest.raises(ValueError, match="`bundles` must name at least one bundle"):
        cost(shape=(1, 1, 8, 8))
