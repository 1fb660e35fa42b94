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

"""A teacher, or a team, as a network that an evaluator scores."""

from __future__ import annotations

import pytest
import torch

from monai_kd.bundle import network_of
from monai_kd.networks import Teacher, TeacherTeam


@pytest.mark.parametrize("team", [False, True])
def test_gives_the_logits_of_the_teacher(team):
    members = [Teacher(torch.nn.Conv2d(1, 2, 1)) for _ in range(2)]
    teacher = TeacherTeam(members) if team else members[0]
    image = torch.randn(2, 1, 4, 4)
    assert torch.equal(network_of(teacher, "cpu")(image), teacher(image).logits)


def test_none_without_a_teacher():
    assert network_of(None, "cpu") is None
