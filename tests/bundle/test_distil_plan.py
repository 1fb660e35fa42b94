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

"""What a plan says of teacher and student, before anything is written."""

from __future__ import annotations

import pytest
from monai.networks.nets import UNet

from monai_kd.bundle.bundle_parts import bundle_parts
from monai_kd.bundle.distil_plan import make_plan
from tests.bundle.zoo_bundles import UNET, write_nested


def parameters(channels: list[int]) -> int:
    block = {key: value for key, value in UNET.items() if key != "_target_"} | {"channels": channels}
    return sum(each.numel() for each in UNet(**block).parameters())


@pytest.fixture
def plan_of(tmp_path):
    """A plan for a small bundle."""
    folder = write_nested(tmp_path / "teacher")

    def make(student="1/4", flops="", terms="", weight="auto"):
        return make_plan(bundle_parts(folder), student, flops, tmp_path / "out", terms, weight, "")

    return make


def test_facts_are_counted(plan_of):
    facts = plan_of().facts
    assert facts["parameters"] == parameters([4, 8])
    assert facts["teacher_parameters"] == parameters(UNET["channels"])
    assert 0 < facts["flops"] < facts["teacher_flops"] / 4
    assert facts["teacher"] == "teacher"
    assert facts["terms"] == "KDLoss(temperature=1, activation='softmax')"


def test_text_names_teacher_student_terms_and_places(plan_of, tmp_path):
    text = plan_of().text()
    for part in ("teacher: UNet", "student: UNet", "{'channels': [4, 8]}", "weight auto", f"to: {tmp_path / 'out'}"):
        assert part in text


@pytest.mark.parametrize(("weight", "read"), [("auto", "auto"), ("1/2", 0.5), (0, 0.0)])
def test_weight(plan_of, weight, read):
    assert plan_of(weight=weight).weight == read


def test_nothing_is_written(plan_of, tmp_path):
    plan_of()
    assert [path.name for path in tmp_path.iterdir()] == ["teacher"]
