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

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, rel_entr, softmax

from monai_kd.losses import KDLoss

few = settings(max_examples=15, deadline=None)


def logits(*shape, seed=0):
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def divergences(student, teacher, temperature, direction="forward"):
    """KL at each pixel by a loop, (B, *spatial)."""
    spatial = (student.shape[0], *student.shape[2:])
    divergence = np.zeros(spatial)
    for pixel in np.ndindex(*spatial):
        at = (pixel[0], slice(None), *pixel[1:])
        p = softmax(teacher.numpy()[at].astype(float) / temperature)
        q = softmax(student.numpy()[at].astype(float) / temperature)
        divergence[pixel] = rel_entr(p, q).sum() if direction == "forward" else rel_entr(q, p).sum()
    return divergence


# emkd_pmd_T4_C2: EMKD's prediction_map_distillation on two classes. kd_mdistiller_T4_NCHW: mdistiller's KD on four.
@pytest.mark.parametrize("name", ["emkd_pmd_T4_C2", "kd_mdistiller_T4_NCHW"])
def test_equals_released_code(parity_case, name):
    case = parity_case(name)
    loss = KDLoss()(case.s, case.t)
    loss.backward()
    assert loss.item() == pytest.approx(case.loss, rel=1e-5)
    assert case.s.grad.norm().item() == pytest.approx(case.grad_norms["s"], rel=1e-4)
    torch.testing.assert_close(case.s.grad, case.grad_s, rtol=1e-4, atol=1e-8)


@few
@given(
    classes=st.integers(2, 5),
    spatial=st.lists(st.integers(1, 4), min_size=2, max_size=3),
    temperature=st.floats(0.5, 8),
    direction=st.sampled_from(["forward", "reverse"]),
)
def test_equals_scipy_loop(classes, spatial, temperature, direction):
    student, teacher = logits(2, classes, *spatial), logits(2, classes, *spatial, seed=1)
    expected = temperature**2 * divergences(student, teacher, temperature, direction).mean()
    assert KDLoss(temperature, direction)(student, teacher).item() == pytest.approx(expected, rel=1e-4, abs=1e-6)


@few
@given(spatial=st.lists(st.integers(1, 4), min_size=2, max_size=3), temperature=st.floats(0.5, 8))
def test_one_channel_is_bernoulli(spatial, temperature):
    student, teacher = logits(2, 1, *spatial), logits(2, 1, *spatial, seed=1)
    p, q = (expit(x.numpy().astype(float) / temperature) for x in (teacher, student))
    expected = temperature**2 * (rel_entr(p, q) + rel_entr(1 - p, 1 - q)).mean()
    assert KDLoss(temperature)(student, teacher).item() == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_one_channel_has_a_gradient():
    student = logits(2, 1, 4, 4).requires_grad_()
    KDLoss()(student, logits(2, 1, 4, 4, seed=1)).backward()
    assert (student.grad != 0).all()


@pytest.mark.parametrize("spatial", [(4, 5), (3, 4, 2)])
def test_class_balance_equals_numpy(spatial):
    student, teacher = logits(2, 4, *spatial), logits(2, 4, *spatial, seed=1)
    label = torch.randint(0, 3, (2, 1, *spatial), generator=torch.Generator().manual_seed(2))  # class 3 is absent
    divergence = 16 * divergences(student, teacher, 4)
    expected = np.mean([divergence[label[:, 0].numpy() == c].mean() for c in range(3)])
    assert KDLoss(balance="class")(student, teacher, label).item() == pytest.approx(expected, rel=1e-5)


def test_class_balance_lifts_a_rare_class_to_the_same_share():
    student, teacher = torch.zeros(1, 2, 10, 10), torch.zeros(1, 2, 10, 10)
    label = torch.zeros(1, 1, 10, 10)
    teacher[0, 1, 4, 4] = 8.0  # networks differ at the only lesion pixel
    label[0, 0, 4, 4] = 1
    plain, balanced = KDLoss()(student, teacher, label), KDLoss(balance="class")(student, teacher, label)
    assert balanced.item() == pytest.approx(plain.item() * 100 / 2)


def test_class_balance_of_equal_classes_is_the_plain_mean():
    student, teacher = logits(2, 2, 4, 6), logits(2, 2, 4, 6, seed=1)
    label = (torch.arange(6) % 2).expand(2, 1, 4, 6)
    torch.testing.assert_close(KDLoss(balance="class")(student, teacher, label), KDLoss()(student, teacher))


def test_class_balance_of_one_channel_takes_indices_and_two_channels():
    student, teacher = logits(2, 1, 4, 6), logits(2, 1, 4, 6, seed=1)
    label = (logits(2, 1, 4, 6, seed=2) > 0).float()
    loss = KDLoss(balance="class")
    expected = loss(torch.cat([0 * student, student], 1), torch.cat([0 * teacher, teacher], 1), label)
    torch.testing.assert_close(loss(student, teacher, label), expected)
    torch.testing.assert_close(loss(student, teacher, torch.cat([1 - label, label], 1)), expected)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_order_of_classes_does_not_matter(order):
    student, teacher = logits(2, 3, 4, 4), logits(2, 3, 4, 4, seed=1)
    torch.testing.assert_close(KDLoss()(student[:, order], teacher[:, order]), KDLoss()(student, teacher))


def test_gradient_keeps_its_size_over_temperatures():
    def norm(temperature):
        student = logits(2, 2, 16, 16).requires_grad_()
        KDLoss(temperature)(student, logits(2, 2, 16, 16, seed=1)).backward()
        return student.grad.norm().item()

    assert 0.5 < norm(8) / norm(1) < 2
    assert 0.95 < norm(32) / norm(16) < 1.05  # without the square it would be a quarter


def test_confident_networks_give_the_log_odds():
    student, teacher = torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2, 2)
    student[:, 0], teacher[:, 1] = 1e4, 1e4
    assert KDLoss(temperature=1)(student, teacher).item() == pytest.approx(1e4)


def test_temperature_follows_a_schedule():
    student, teacher = logits(2, 3, 4, 4), logits(2, 3, 4, 4, seed=1)
    loss = KDLoss(temperature=4)
    loss.temperature = 2
    assert torch.equal(loss(student, teacher), KDLoss(temperature=2)(student, teacher))


@pytest.mark.parametrize("temperature", [0, -1.0, float("nan"), float("inf")])
def test_temperature_must_be_positive(temperature):
    loss = KDLoss()
    with pytest.raises(ValueError, match="`temperature` must be a finite number above 0, but got"):
        loss.temperature = temperature
    with pytest.raises(ValueError, match="`temperature` must be a finite number above 0, but got"):
        KDLoss(temperature=temperature)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"direction": "backward"}, "`direction` must be one of 'forward', 'reverse', but got 'backward'"),
        ({"balance": True}, "`balance` must be one of 'none', 'class', but got True"),
    ],
)
def test_unknown_options_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        KDLoss(**arguments)


@pytest.mark.parametrize("shape", [(2, 4, 8, 8), (2, 3, 8, 4), (2, 1, 8, 8)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"`student` must have the shape of `teacher`, but got .* and \(2, 3, 8, 8\)"):
        KDLoss()(torch.zeros(shape), torch.zeros(2, 3, 8, 8))


def test_label_of_other_size_is_refused():
    logit = torch.zeros(2, 3, 8, 8)
    with pytest.raises(ValueError, match=r"`label` must have the spatial size of `student`, but got \(16, 16\)"):
        KDLoss(balance="class")(logit, logit, torch.zeros(2, 1, 16, 16))


def test_label_of_more_classes_is_refused():
    logit = torch.zeros(2, 3, 8, 8)
    with pytest.raises(ValueError, match="`label` must hold whole class indices from 0 to 2, but got 3"):
        KDLoss(balance="class")(logit, logit, torch.full((2, 1, 8, 8), 3))
