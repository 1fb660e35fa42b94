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

"""What a network says, as a container."""

from __future__ import annotations

import pytest
import torch

from monai_kd.networks import Knowledge


def test_logits_are_the_first_output_and_can_be_repaired():
    fine, coarse, repaired = torch.zeros(1, 2, 8, 8), torch.zeros(1, 2, 4, 4), torch.ones(1, 2, 8, 8)
    knowledge = Knowledge([fine, coarse])
    assert knowledge.logits is fine
    knowledge.logits = repaired
    assert knowledge.outputs[0] is knowledge.logits is repaired
    assert knowledge.outputs[1] is coarse


def test_of_a_member_or_of_all():
    member = Knowledge([torch.zeros(1, 2, 8, 8)])
    team = Knowledge([torch.zeros(1, 2, 8, 8)], members={"a": member})
    assert team.of("a") is member
    assert team.of(None) is team
    with pytest.raises(KeyError):
        team.of("b")


def test_two_do_not_share_their_dictionaries():
    assert Knowledge([]).features is not Knowledge([]).features
    assert Knowledge([]).members == {}
