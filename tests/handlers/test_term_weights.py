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

"""Weights of the terms: numbers, schedules, and those that follow gradients."""

from __future__ import annotations

import pytest
import torch

from monai_kd.handlers import DistillationTerm, GradientShare, LinearSchedule
from monai_kd.handlers._term_weights import TermWeights
from monai_kd.losses import KDLoss


def weights_of(supervised: bool = True, auto_share: float = 1.0, **weights) -> TermWeights:
    terms = {name: DistillationTerm(KDLoss(), each, name=name) for name, each in weights.items()}
    return TermWeights(terms, auto_share, supervised)


def test_numbers_and_schedules_are_taken_as_they_are():
    weights = weights_of(fixed=0.3, ramp=LinearSchedule(0.0, 1.0, 4))
    assert weights.at(weights.asked(2.0)) == {"fixed": 0.3, "ramp": 0.5}
    assert not weights.auto


def test_auto_terms_part_their_share():
    weights = weights_of(one="auto", other="auto", own=GradientShare(0.4), auto_share=0.6)
    weights.update({"one": (1.0, 2.0), "other": (4.0, 2.0), "own": (1.0, 1.0)})
    assert weights.at(weights.asked(0.0)) == pytest.approx({"one": 0.6, "other": 0.15, "own": 0.4})


def test_terms_of_weight_zero_do_not_count():
    assert list(weights_of(none=0.0, some=0.1).counted(0.0)) == ["some"]


def test_shares_fall_and_rise_with_the_student():
    weights = weights_of(kd="auto")
    dampings = []
    for collapsed in (True, True, False, False, False):
        weights.see(torch.tensor(1.0))
        weights.end_epoch(collapsed)
        dampings.append(weights.balancer.damping)
    assert dampings == [0.5, 0.25, 0.5, 1.0, 1.0]


def test_without_a_supervised_loss_nothing_falls():
    weights = weights_of(kd="auto", supervised=False)
    weights.update({"kd": (1.0, 8.0)})
    weights.end_epoch(collapsed=True)
    assert weights.at(weights.asked(0.0)) == {"kd": 1.0}


def test_state_goes_on():
    one, other = weights_of(kd="auto"), weights_of(kd="auto")
    one.update({"kd": (1.0, 8.0)})
    one.see(torch.tensor(2.0))
    one.end_epoch(collapsed=True)
    other.load_state_dict(one.state_dict())
    assert other.at(other.asked(0.0)) == one.at(one.asked(0.0)) == {"kd": 4.0}
    assert other.state_dict() == one.state_dict()
    other.load_state_dict({})  # an older checkpoint
    assert other.state_dict() == one.state_dict()
