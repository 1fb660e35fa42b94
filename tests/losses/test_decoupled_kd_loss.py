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
from scipy.special import rel_entr, softmax

from monai_kd.losses import DecoupledKDLoss, KDLoss

few = settings(max_examples=15, deadline=None)


def logits(*shape, seed=0):
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def indices(*shape, classes, seed=2):
    return torch.randint(0, classes, shape, generator=torch.Generator().manual_seed(seed))


def parts(student, teacher, label, temperature):
    """Divergence of the true class and of the others at each pixel by a loop, and the teacher's p of the true class."""
    spatial = (student.shape[0], *student.shape[2:])
    target, others, certainty = np.zeros(spatial), np.zeros(spatial), np.zeros(spatial)
    for pixel in np.ndindex(*spatial):
        at = (pixel[0], slice(None), *pixel[1:])
        true = int(label[(pixel[0], 0, *pixel[1:])])
        p, q = (softmax(x.double().numpy()[at] / temperature) for x in (teacher, student))
        target[pixel] = rel_entr([p[true], 1 - p[true]], [q[true], 1 - q[true]]).sum()
        p_others, q_others = (np.delete(x, true) / (1 - x[true]) for x in (p, q))
        others[pixel] = rel_entr(p_others, q_others).sum()
        certainty[pixel] = p[true]
    return target, others, certainty


# dkd_mdistiller_pixels_C5_T4: the code released with the paper, each pixel a sample; both its terms are recorded.
def test_equals_released_code(parity_case):
    case = parity_case("dkd_mdistiller_pixels_C5_T4")
    label = case.label.unsqueeze(1)
    loss = DecoupledKDLoss()(case.s, case.t, label)
    loss.backward()
    assert loss.item() == pytest.approx(case.loss, rel=1e-5)
    assert case.s.grad.norm().item() == pytest.approx(case.grad_norms["s"], rel=1e-4)
    torch.testing.assert_close(case.s.grad, case.grad_s, rtol=1e-4, atol=1e-7)
    target, others = DecoupledKDLoss(beta=0), DecoupledKDLoss(alpha=0, beta=1)
    assert target(case.s, case.t, label).item() == pytest.approx(case.extra["tckd_only"], rel=1e-5)
    assert others(case.s, case.t, label).item() == pytest.approx(case.extra["nckd_only"], rel=1e-5)


# the release gives the teacher NaN, of the true class that it hides
def test_teacher_that_asks_for_a_gradient_gets_none():
    student, teacher = logits(2, 5, 4, 4).requires_grad_(), logits(2, 5, 4, 4, seed=1).requires_grad_()
    DecoupledKDLoss()(student, teacher, indices(2, 1, 4, 4, classes=5)).backward()
    assert teacher.grad is None
    assert torch.isfinite(student.grad).all()


@few
@given(
    classes=st.integers(2, 5),
    spatial=st.lists(st.integers(1, 4), min_size=2, max_size=3),
    weights=st.tuples(st.floats(0, 3), st.floats(0, 9)),
    temperature=st.floats(0.5, 8),
)
def test_equals_scipy_loop(classes, spatial, weights, temperature):
    student, teacher = logits(2, classes, *spatial), logits(2, classes, *spatial, seed=1)
    label = indices(2, 1, *spatial, classes=classes)
    target, others, _ = parts(student, teacher, label, temperature)
    expected = temperature**2 * (weights[0] * target + weights[1] * others).mean()
    loss = DecoupledKDLoss(*weights, temperature=temperature)(student, teacher, label)
    assert loss.item() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_parts_add_up_to_kd():
    student, teacher, label = logits(2, 4, 3, 3), logits(2, 4, 3, 3, seed=1), indices(2, 1, 3, 3, classes=4)
    for at in np.ndindex(2, 3, 3):
        pixel = (slice(at[0], at[0] + 1), slice(None), slice(at[1], at[1] + 1), slice(at[2], at[2] + 1))
        certainty = torch.softmax(teacher[pixel] / 4, dim=1)[0, int(label[pixel])].item()
        decoupled = DecoupledKDLoss(alpha=1, beta=1 - certainty)(student[pixel], teacher[pixel], label[pixel])
        torch.testing.assert_close(decoupled, KDLoss()(student[pixel], teacher[pixel]), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("alpha", "beta"), [(1, 8), (0.5, 0), (2, 1000)])
def test_two_classes_are_kd_whatever_the_label(alpha, beta):
    student, teacher = logits(2, 2, 4, 6).requires_grad_(), logits(2, 2, 4, 6, seed=1)
    expected = alpha * KDLoss()(student, teacher)
    slope = torch.autograd.grad(expected, student)[0]
    for seed in range(3):
        loss = DecoupledKDLoss(alpha, beta)(student, teacher, indices(2, 1, 4, 6, classes=2, seed=seed))
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(torch.autograd.grad(loss, student)[0], slope, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("spatial", [(4, 6), (2, 4, 3)])
def test_one_channel_is_the_foreground_of_two(spatial):
    student, teacher = logits(2, 1, *spatial).requires_grad_(), logits(2, 1, *spatial, seed=1)
    label = indices(2, 1, *spatial, classes=2)
    loss = DecoupledKDLoss()(student, teacher, label)
    two = [torch.cat([torch.zeros_like(x), x], dim=1) for x in (student, teacher)]
    torch.testing.assert_close(loss, DecoupledKDLoss()(*two, label))
    torch.testing.assert_close(loss, KDLoss()(student, teacher))
    one_hot = torch.cat([1 - label, label], dim=1)
    assert torch.equal(DecoupledKDLoss()(student, teacher, one_hot), loss)
    loss.backward()
    assert (student.grad != 0).all()


@pytest.mark.parametrize("spatial", [(4, 5), (3, 4, 2)])
def test_class_balance_equals_numpy(spatial):
    student, teacher = logits(2, 4, *spatial), logits(2, 4, *spatial, seed=1)
    label = indices(2, 1, *spatial, classes=3)  # class 3 is absent
    target, others, _ = parts(student, teacher, label, 4)
    divergence = 16 * (target + 8 * others)
    expected = np.mean([divergence[label[:, 0].numpy() == c].mean() for c in range(3)])
    assert DecoupledKDLoss(balance="class")(student, teacher, label).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("balance", ["none", "class"])
def test_pixel_without_a_class_does_not_count(balance):
    student, teacher, label = logits(1, 3, 4, 6), logits(1, 3, 4, 6, seed=1), indices(1, 1, 4, 6, classes=3)
    one_hot = torch.nn.functional.one_hot(label[:, 0], 3).movedim(-1, 1).clone()
    one_hot[..., 3:] = 0
    student.requires_grad_()
    loss = DecoupledKDLoss(balance=balance)(student, teacher, one_hot)
    expected = DecoupledKDLoss(balance=balance)(student[..., :3], teacher[..., :3], label[..., :3])
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert float(student.grad[..., 3:].abs().max()) == 0


def test_label_without_any_class_teaches_nothing():
    student, teacher = logits(1, 3, 4, 4).requires_grad_(), logits(1, 3, 4, 4, seed=1)
    loss = DecoupledKDLoss()(student, teacher, torch.zeros(1, 3, 4, 4))
    loss.backward()
    assert loss.item() == 0
    assert float(student.grad.norm()) == 0


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_order_of_classes_does_not_matter(order):
    student, teacher, label = logits(2, 3, 4, 4), logits(2, 3, 4, 4, seed=1), indices(2, 1, 4, 4, classes=3)
    renamed = torch.tensor(order).argsort()[label]
    shuffled = DecoupledKDLoss()(student[:, order], teacher[:, order], renamed)
    torch.testing.assert_close(shuffled, DecoupledKDLoss()(student, teacher, label))


def test_level_of_the_logits_does_not_matter():
    student, teacher, label = logits(2, 3, 4, 4), logits(2, 3, 4, 4, seed=1), indices(2, 1, 4, 4, classes=3)
    expected = DecoupledKDLoss()(student, teacher, label)
    torch.testing.assert_close(DecoupledKDLoss()(student + 20, teacher - 7, label), expected, rtol=1e-4, atol=1e-5)


# 1 - p rounds to 0, whose logarithm the release takes
def test_certain_networks_give_the_log_odds():
    student, teacher = torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 2)
    student[:, 0], teacher[:, 1] = 1e4, 1e4
    student.requires_grad_()
    loss = DecoupledKDLoss(temperature=1, beta=0)(student, teacher, torch.zeros(1, 1, 2, 2))
    loss.backward()
    assert loss.item() == pytest.approx(1e4, rel=1e-3)
    assert student.grad[0, 0].flatten().tolist() == pytest.approx([0.25] * 4)


def test_teacher_certain_of_the_truth_still_teaches_the_others():
    student, teacher = torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 2)
    student[:, 0], teacher[:, 0], teacher[:, 1] = 200, 200, 3
    student.requires_grad_()
    label = torch.zeros(1, 1, 2, 2)
    slopes = [
        torch.autograd.grad(loss(student, teacher, label), student)[0].norm().item()
        for loss in (KDLoss(temperature=1), DecoupledKDLoss(temperature=1, beta=1))
    ]
    assert slopes[0] < 1e-6
    assert slopes[1] > 0.1


def test_temperature_follows_a_schedule():
    student, teacher, label = logits(2, 3, 4, 4), logits(2, 3, 4, 4, seed=1), indices(2, 1, 4, 4, classes=3)
    loss = DecoupledKDLoss()
    loss.temperature = 2
    assert torch.equal(loss(student, teacher, label), DecoupledKDLoss(temperature=2)(student, teacher, label))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"alpha": -1}, "`alpha` must be a finite number of at least 0, but got -1"),
        ({"beta": float("nan")}, "`beta` must be a finite number of at least 0, but got nan"),
        ({"temperature": 0}, "`temperature` must be a finite number above 0, but got 0"),
        ({"balance": "pixel"}, "`balance` must be one of 'none', 'class', but got 'pixel'"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        DecoupledKDLoss(**arguments)


@pytest.mark.parametrize("shape", [(2, 4, 8, 8), (2, 3, 8, 4), (2, 1, 8, 8)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"`student` must have the shape of `teacher`, but got .* and \(2, 3, 8, 8\)"):
        DecoupledKDLoss()(torch.zeros(shape), torch.zeros(2, 3, 8, 8), torch.zeros(2, 1, 8, 8))


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (torch.zeros(2, 1, 16, 16), r"`label` must have the spatial size of `student`, but got \(16, 16\)"),
        (torch.full((2, 1, 8, 8), 3), "`label` must hold whole class indices from 0 to 2, but got 3"),
        (torch.zeros(2, 8, 8), "`label` must have the batch size and the number of dimensions of `student`"),
    ],
)
def test_wrong_labels_are_refused(label, message):
    with pytest.raises(ValueError, match=message):
        DecoupledKDLoss()(torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 8, 8), label)
