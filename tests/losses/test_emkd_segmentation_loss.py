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

"""EMKD's supervised loss is 0.5 focal + 0.5 Dice of its own making. These tests say how MONAI's classes spell it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.losses import DiceLoss, FocalLoss, GeneralizedDiceLoss
from scipy.special import log_softmax, softmax


def focal(classes):
    return FocalLoss(to_onehot_y=True, use_softmax=True, gamma=2.0, weight=float(classes))


def dice():
    return GeneralizedDiceLoss(
        include_background=False,
        to_onehot_y=True,
        softmax=True,
        w_type="uniform",
        smooth_nr=1.0,
        smooth_dr=1.0,
        batch=True,
    )


# emkd_focal: EMKD's FocalLoss(gamma=2, alpha=[1, 1]). MONAI's mean runs over the classes too, hence the weight.
def test_focal_value_equals_released_code(parity_case):
    case = parity_case("emkd_focal")
    assert focal(2)(case.s, case.mask[:, 1:]).item() == pytest.approx(case.loss, rel=1e-5)


# The release holds (1 - p)^gamma constant in the backward pass, MONAI differentiates it as the paper of the loss does.
def test_focal_gradient_differs_from_released_code(parity_case):
    case = parity_case("emkd_focal")
    log_p = case.s.log_softmax(1).gather(1, case.mask[:, 1:].long())
    (-((1 - log_p.detach().exp()) ** 2) * log_p).mean().backward()
    assert case.s.grad.norm().item() == pytest.approx(case.grad_norms["s"], rel=1e-4)
    through = torch.autograd.grad(focal(2)(case.s, case.mask[:, 1:]), case.s)[0]
    assert through.norm().item() > 1.2 * case.grad_norms["s"]


# emkd_dice: EMKD's dice_loss, over the foreground of the whole batch with 1 added above and below.
def test_dice_equals_released_code(parity_case):
    case = parity_case("emkd_dice")
    loss = dice()(case.s, case.mask[:, 1:])
    loss.backward()
    assert loss.item() == pytest.approx(case.loss, rel=1e-5)
    assert case.s.grad.norm().item() == pytest.approx(case.grad_norms["s"], rel=1e-4)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_any_class_count_equals_released_formulas(classes):
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(2, classes, 6, 5, generator=draw)
    label = torch.randint(0, classes, (2, 1, 6, 5), generator=draw).float()
    one_hot = np.moveaxis(np.eye(classes)[label[:, 0].long().numpy()], -1, 1)
    probability, log_probability = softmax(logits.numpy(), axis=1), log_softmax(logits.numpy(), axis=1)
    expected_focal = -((1 - probability) ** 2 * log_probability * one_hot).sum(axis=1).mean()
    overlap, total = (probability * one_hot)[:, 1:].sum(), (probability + one_hot)[:, 1:].sum()
    assert focal(classes)(logits, label).item() == pytest.approx(expected_focal, rel=1e-5)
    assert dice()(logits, label).item() == pytest.approx(1 - (2 * overlap + 1) / (total + 1), rel=1e-5)


def test_dice_of_two_classes_is_the_usual_dice_loss():
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 2, 6, 5, generator=draw)
    label = torch.randint(0, 2, (2, 1, 6, 5), generator=draw)
    usual = DiceLoss(include_background=False, to_onehot_y=True, softmax=True, smooth_nr=1.0, smooth_dr=1.0, batch=True)
    torch.testing.assert_close(dice()(logits, label), usual(logits, label))
