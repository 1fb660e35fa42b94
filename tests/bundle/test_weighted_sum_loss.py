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

"""A sum of losses with weights."""

from __future__ import annotations

import pytest
import torch
from monai.losses import DiceLoss, FocalLoss

from monai_kd.bundle import WeightedSumLoss


def test_value_is_the_sum():
    logits, label = torch.randn(2, 2, 4, 4), torch.randint(0, 2, (2, 1, 4, 4))
    focal, dice = FocalLoss(to_onehot_y=True), DiceLoss(to_onehot_y=True, softmax=True)
    loss = WeightedSumLoss({"focal": focal, "dice": dice}, {"focal": 0.5, "dice": 2})
    expected = 0.5 * focal(logits, label) + 2.0 * dice(logits, label)
    torch.testing.assert_close(loss(logits, label), expected, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("losses", "weights", "said"),
    [
        ({}, {}, "`losses` must hold at least one loss"),
        ({"dice": DiceLoss()}, {"focal": 1}, "`weights` must have the names of `losses`, but got focal and dice"),
    ],
)
def test_names_that_do_not_fit(losses, weights, said):
    with pytest.raises(ValueError, match=said):
        WeightedSumLoss(losses, weights)
