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
from scipy.special import expit, softmax

from monai_kd.losses import LocalAffinityLoss

few = settings(max_examples=15, deadline=None)


def logits(*shape, seed=0):
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def changes(y):
    """Mean distance of each pixel to those of its neighbours that are in the image, from (C, *spatial), by a loop."""
    found = np.zeros(y.shape[1:])
    for pixel in np.ndindex(*found.shape):
        steps = (step for step in itertools.product((-1, 0, 1), repeat=found.ndim) if any(step))
        around = [tuple(np.add(pixel, step)) for step in steps]
        inside = [q for q in around if all(0 <= a < n for a, n in zip(q, found.shape, strict=True))]
        distances = [np.linalg.norm(y[(slice(None), *pixel)] - y[(slice(None), *q)]) for q in inside]
        found[pixel] = np.mean(distances) if distances else 0
    return found


def differences(student, teacher):
    """Zero and first order at each pixel, from probabilities (B, C, *spatial), each (B, *spatial)."""
    zero = ((student - teacher) ** 2).sum(axis=1)
    first = [(changes(s) - changes(t)) ** 2 for s, t in zip(student, teacher, strict=True)]
    return zero, np.stack(first)


@few
@given(
    classes=st.integers(2, 4),
    spatial=st.lists(st.integers(1, 4), min_size=2, max_size=3),
    seed=st.integers(0, 99),
)
def test_equals_numpy_loop(classes, spatial, seed):
    student, teacher = logits(2, classes, *spatial, seed=seed), logits(2, classes, *spatial, seed=seed + 1)
    zero, first = differences(*(softmax(x.numpy().astype(float), axis=1) for x in (student, teacher)))
    for order, expected in [("zero", zero), ("first", first), ("both", zero + first)]:
        loss = LocalAffinityLoss(order)(student, teacher)
        assert loss.item() == pytest.approx(expected.mean(), rel=1e-4, abs=1e-7)


@few
@given(spatial=st.lists(st.integers(1, 4), min_size=2, max_size=3), seed=st.integers(0, 99))
def test_one_channel_is_bernoulli(spatial, seed):
    student, teacher = logits(2, 1, *spatial, seed=seed), logits(2, 1, *spatial, seed=seed + 1)
    foreground = [expit(x.numpy().astype(float)) for x in (student, teacher)]
    zero, first = differences(*(np.concatenate([1 - p, p], axis=1) for p in foreground))
    assert LocalAffinityLoss()(student, teacher).item() == pytest.approx((zero + first).mean(), rel=1e-4, abs=1e-7)


def test_one_channel_has_a_gradient():
    for order in ("both", "zero", "first"):
        student = logits(2, 1, 4, 4).requires_grad_()
        LocalAffinityLoss(order)(student, logits(2, 1, 4, 4, seed=1)).backward()
        assert (student.grad != 0).all()


@pytest.mark.parametrize("spatial", [(3, 3), (3, 3, 3)])
def test_edge_by_hand(spatial):
    # the teacher sees a foreground of one pixel in the middle, the student none; neighbours are sqrt(2) away from it
    teacher = torch.full((1, 1, *spatial), -200.0)
    teacher[(0, 0, *(1 for _ in spatial))] = 200
    student = torch.full_like(teacher, -200.0)
    pixels = 3 ** len(spatial)
    # a pixel with k axes in the middle has 2^(d - k) 3^k - 1 neighbours, one of which is the foreground
    each = [2 ** (len(spatial) - k) * 3**k - 1 for k in (np.array(list(np.ndindex(*spatial))) == 1).sum(axis=1)]
    middle = len(each) // 2
    first = sum((np.sqrt(2) / n) ** 2 for i, n in enumerate(each) if i != middle) + 2
    assert LocalAffinityLoss("zero")(student, teacher).item() == pytest.approx(2 / pixels)
    assert LocalAffinityLoss("first")(student, teacher).item() == pytest.approx(first / pixels)


def test_border_has_no_false_neighbours():
    # two halves, alike along the first axis: what lies at the border changes as little as what lies inside
    teacher = torch.zeros(1, 2, 6, 4)
    teacher[:, 0, :, :2] = 3
    change = LocalAffinityLoss._change(teacher.softmax(dim=1))[0]
    assert change[:, [0, 3]].abs().max() == 0
    y = torch.softmax(torch.tensor([3.0, 0.0]), dim=0) - 0.5
    distance = float(y.norm())
    torch.testing.assert_close(change[1:-1, 1:3], torch.full((4, 2), 3 / 8 * distance))
    torch.testing.assert_close(change[[0, -1], 1:3], torch.full((2, 2), 2 / 5 * distance))


@pytest.mark.parametrize("spatial", [(3, 4), (3, 2, 4)])
@pytest.mark.parametrize("order", ["both", "zero", "first"])
def test_mirrored_and_turned_images_and_other_order_of_classes_same_loss(spatial, order):
    student, teacher = logits(2, 3, *spatial), logits(2, 3, *spatial, seed=1)
    loss = LocalAffinityLoss(order)
    expected = loss(student, teacher)
    for axis in range(2, student.ndim):
        torch.testing.assert_close(loss(student.flip(axis), teacher.flip(axis)), expected)
    torch.testing.assert_close(loss(student.transpose(2, -1), teacher.transpose(2, -1)), expected)
    torch.testing.assert_close(loss(student[:, [2, 0, 1]], teacher[:, [2, 0, 1]]), expected)
    torch.testing.assert_close(loss(student + 5, teacher - 3), expected)


def test_first_order_alone_knows_no_class():
    # the same shape with both classes swapped: every change is the same, every probability is not
    student = logits(2, 1, 4, 4)
    assert LocalAffinityLoss("first")(student, -student).item() == pytest.approx(0, abs=1e-10)
    assert LocalAffinityLoss("zero")(student, -student).item() > 0.1


def test_flat_student_learns_from_the_zero_order():
    student, teacher = torch.zeros(1, 3, 4, 4, requires_grad=True), logits(1, 3, 4, 4)
    first = torch.autograd.grad(LocalAffinityLoss("first")(student, teacher), student)[0]
    assert float(first.norm()) == 0
    both = torch.autograd.grad(LocalAffinityLoss()(student, teacher), student)[0]
    assert torch.isfinite(both).all()
    assert float(both.norm()) > 1e-3


@few
@given(spatial=st.lists(st.integers(2, 4), min_size=2, max_size=3), seed=st.integers(0, 99))
def test_balance_is_the_mean_over_classes(spatial, seed):
    student, teacher = logits(2, 3, *spatial, seed=seed), logits(2, 3, *spatial, seed=seed + 1)
    label = torch.randint(0, 3, (2, 1, *spatial), generator=torch.Generator().manual_seed(seed))
    zero, first = differences(*(softmax(x.numpy().astype(float), axis=1) for x in (student, teacher)))
    of = label[:, 0].numpy()
    expected = np.mean([(zero + first)[of == c].mean() for c in np.unique(of)])
    loss = LocalAffinityLoss(balance="class")
    assert loss(student, teacher, label).item() == pytest.approx(expected, rel=1e-4, abs=1e-7)
    larger = label
    for axis in range(2, label.ndim):
        larger = larger.repeat_interleave(2, dim=axis)
    torch.testing.assert_close(loss(student, teacher, larger), loss(student, teacher, label))


def test_one_channel_is_balanced_over_two_classes():
    student, teacher = logits(2, 1, 4, 4), logits(2, 1, 4, 4, seed=1)
    label = (logits(2, 1, 4, 4, seed=2) > 0).long()
    two = [torch.cat([torch.zeros_like(x), x], dim=1) for x in (student, teacher)]
    loss = LocalAffinityLoss(balance="class")
    torch.testing.assert_close(loss(student, teacher, label), loss(*two, label))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"order": "second"}, "`order` must be one of 'both', 'zero', 'first', but got 'second'"),
        ({"balance": "pixel"}, "`balance` must be one of 'none', 'class', but got 'pixel'"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        LocalAffinityLoss(**arguments)


@pytest.mark.parametrize("shape", [(2, 2, 4, 4), (2, 3, 4, 2)])
def test_other_classes_or_size_are_refused(shape):
    with pytest.raises(ValueError, match=r"`student` must have the shape of `teacher`, but got \(2, 3, 4, 4\) and"):
        LocalAffinityLoss()(logits(2, 3, 4, 4), logits(*shape))
