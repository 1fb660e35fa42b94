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
import torch
from hypothesis import given, settings
from monai.data import MetaTensor

from monai_kd.corrections import false_pixels
from tests.corrections.correction_case import cases, make_case, predicted

few = settings(max_examples=25, deadline=None)


@few
@given(case=cases)
def test_equals_numpy(case):
    false = false_pixels(case.soft_label, case.label)
    assert false.dtype == torch.bool
    assert torch.equal(false, predicted(case.soft_label) != case.label)


def test_one_channel_is_the_second_of_two():
    case = make_case(outputs=2)
    assert torch.equal(false_pixels(case.soft_label[:, 1:], case.label), false_pixels(case.soft_label, case.label))


def test_metadata_and_type_of_the_label_do_not_matter():
    case = make_case(outputs=3)
    expected = false_pixels(case.soft_label, case.label)
    false = false_pixels(MetaTensor(case.soft_label), MetaTensor(case.label.half()))
    assert not isinstance(false, MetaTensor)
    assert torch.equal(false, expected)


@pytest.mark.parametrize(
    ("soft_label", "label", "message"),
    [
        (torch.ones(2, 8, 8), torch.zeros(2, 1, 8, 8), r"`soft_label` must be of shape .* but got \(2, 8, 8\)"),
        (torch.ones(2, 1, 8, 8), torch.zeros(2, 8, 8), r"`label` must hold class indices of shape \(2, 1, 8, 8\)"),
        (torch.ones(2, 1, 8, 8), torch.zeros(2, 2, 8, 8), r"got \(2, 2, 8, 8\); a one-hot label wants `label.argmax"),
        (torch.ones(2, 1, 8, 8).long(), torch.zeros(2, 1, 8, 8), "floating-point probabilities, but got torch.int64"),
        (torch.full((2, 2, 8, 8), -3.0), torch.zeros(2, 1, 8, 8), "probabilities, but got -3; logits want `.softmax"),
        (torch.full((2, 1, 8, 8), 1.5), torch.zeros(2, 1, 8, 8), "probabilities, but got 1.5"),
        (torch.full((2, 2, 8, 8), torch.nan), torch.zeros(2, 1, 8, 8), "probabilities, but got nan"),
        (torch.full((2, 2, 8, 8), 0.7), torch.zeros(2, 1, 8, 8), "must sum to 1 over the classes, but got 1.4"),
        (torch.full((2, 2, 8, 8), 0.5), torch.full((2, 1, 8, 8), 2), "class indices from 0 to 1, but got 2"),
        (torch.full((2, 1, 8, 8), 0.5), torch.full((2, 1, 8, 8), -1), "class indices from 0 to 1, but got -1"),
        (torch.full((2, 2, 8, 8), 0.5), torch.full((2, 1, 8, 8), 0.5), "class indices from 0 to 1, but got 0.5"),
    ],
)
def test_guards(soft_label, label, message):
    with pytest.raises(ValueError, match=message):
        false_pixels(soft_label, label)


def test_only_tensors():
    with pytest.raises(TypeError, match="`soft_label` must be a tensor, but got list"):
        false_pixels([torch.ones(2, 1, 8, 8)], torch.zeros(2, 1, 8, 8))
