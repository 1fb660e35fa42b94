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
from skimage.measure import block_reduce

from monai_kd.losses import IntraClassFeatureVariationLoss

few = settings(max_examples=15, deadline=None)


def feature(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def indices(*shape, classes=3, seed=2):
    return torch.randint(0, classes, shape, generator=torch.Generator().manual_seed(seed))


def shares(label, spatial, classes):
    """Share of each class in each cell of one image, (classes, *spatial)."""
    blocks = tuple(of // to for of, to in zip(label.shape, spatial, strict=True))
    return np.stack([block_reduce((label.numpy() == c).astype(float), blocks, np.mean) for c in range(classes)])


def similarities(x, share):
    """Cosine of each pixel to the mean of each class of one image by a loop, 0 for an absent class."""
    found = np.zeros(share.shape)
    for c, pixel in itertools.product(range(len(share)), np.ndindex(*share.shape[1:])):
        if share[c].sum() == 0:
            continue
        centre = (x * share[c]).reshape(x.shape[0], -1).sum(axis=1) / share[c].sum()
        at = x[(slice(None), *pixel)]
        found[(c, *pixel)] = centre @ at / (np.linalg.norm(centre) * np.linalg.norm(at))
    return found


# ifvd_official: IFVD's CriterionIFV, which takes the nearest pixel of the label
def test_equals_released_code(parity_case):
    case = parity_case("ifvd_official")
    loss = IntraClassFeatureVariationLoss(mask_resize="nearest")(case.s, case.t, case.label.unsqueeze(1))
    loss.backward()
    assert loss.item() == pytest.approx(case.loss, rel=1e-5)
    assert case.s.grad.norm().item() == pytest.approx(case.grad_norms["s"], rel=1e-4)
    torch.testing.assert_close(case.s.grad, case.grad_s, rtol=1e-4, atol=1e-8)


def test_mask_in_blocks_is_the_same_by_area(parity_case):
    case = parity_case("ifvd_official")
    label = case.label.unsqueeze(1)[:, :, ::2, ::2]
    blocks = label.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    assert IntraClassFeatureVariationLoss()(case.s, case.t, blocks).item() == pytest.approx(case.loss, rel=1e-5)


@few
@given(
    channels=st.tuples(st.integers(2, 5), st.integers(2, 5)),
    spatial=st.lists(st.integers(1, 3), min_size=2, max_size=3),
    seed=st.integers(0, 99),
)
def test_equals_numpy_loop(channels, spatial, seed):
    student, teacher = feature(2, channels[0], *spatial, seed=seed), feature(2, channels[1], *spatial, seed=seed + 1)
    label = indices(2, 1, *(2 * n for n in spatial), classes=4, seed=seed)
    share = np.stack([shares(one[0], spatial, 4) for one in label])
    difference = np.stack(
        [
            similarities(s, m) - similarities(t, m)
            for s, t, m in zip(student.numpy().astype(float), teacher.numpy().astype(float), share, strict=True)
        ]
    )
    weighted = share * difference**2
    loss = IntraClassFeatureVariationLoss()(student, teacher, label)
    assert loss.item() == pytest.approx(weighted.sum(axis=1).mean(), rel=1e-4, abs=1e-6)
    by_class = [weighted[:, c].sum() / share[:, c].sum() for c in range(4) if share[:, c].any()]
    balanced = IntraClassFeatureVariationLoss(balance="class")(student, teacher, label)
    assert balanced.item() == pytest.approx(np.mean(by_class), rel=1e-4, abs=1e-6)


def test_two_pixels_by_hand():
    # both features of the one class are at a right angle in the student and alike in the teacher
    student = torch.tensor([[[[1.0, 0.0]], [[0.0, 1.0]]]])
    teacher = torch.ones(1, 3, 1, 2)
    loss = IntraClassFeatureVariationLoss()(student, teacher, torch.zeros(1, 1, 1, 2))
    assert loss.item() == pytest.approx((1 - np.sqrt(0.5)) ** 2)


def test_class_of_one_pixel_teaches_nothing():
    student, teacher = feature(1, 4, 4, 4).requires_grad_(), feature(1, 6, 4, 4, seed=1)
    label = torch.zeros(1, 1, 4, 4)
    label[0, 0, 1, 2] = 1
    IntraClassFeatureVariationLoss()(student, teacher, label).backward()
    assert float(student.grad[0, :, 1, 2].norm()) < 1e-7
    assert float(student.grad.norm()) > 1e-3


@pytest.mark.parametrize("corner", list(itertools.product(range(0, 8, 3), repeat=2)))
def test_lesion_smaller_than_a_cell_is_seen(corner):
    # in two cells, a pixel each: by area the lesion has a mean feature of both, whatever the offset in the cell
    student, teacher = feature(1, 4, 4, 4), feature(1, 6, 4, 4, seed=1)
    label, none = torch.zeros(1, 1, 32, 32), torch.zeros(1, 1, 32, 32)
    for cell in (8, 16):
        label[0, 0, cell + corner[0], 16 + corner[1]] = 1
    seen = {
        mode: not torch.equal(*(IntraClassFeatureVariationLoss(mode)(student, teacher, y) for y in (label, none)))
        for mode in ("area", "nearest")
    }
    assert seen == {"area": True, "nearest": corner == (0, 0)}


@pytest.mark.parametrize("balance", ["none", "class"])
def test_absent_class_changes_nothing(balance):
    student, teacher, label = feature(2, 4, 4, 4), feature(2, 6, 4, 4, seed=1), indices(2, 1, 4, 4, classes=2)
    expected = IntraClassFeatureVariationLoss(balance=balance)(student, teacher, label)
    for num_classes in (None, 3, 7):
        loss = IntraClassFeatureVariationLoss(balance=balance, num_classes=num_classes)
        torch.testing.assert_close(loss(student, teacher, 2 * label), expected)  # class 1 is absent
        torch.testing.assert_close(loss(student, teacher, label), expected)


@pytest.mark.parametrize("balance", ["none", "class"])
def test_order_of_classes_does_not_matter(balance):
    student, teacher, label = feature(2, 4, 4, 4), feature(2, 6, 4, 4, seed=1), indices(2, 1, 8, 8)
    loss = IntraClassFeatureVariationLoss(balance=balance)
    for order in itertools.permutations(range(3)):
        torch.testing.assert_close(loss(student, teacher, torch.tensor(order)[label]), loss(student, teacher, label))


def test_pixel_without_a_class_adds_nothing_but_counts():
    student, teacher = feature(2, 4, 4, 4).requires_grad_(), feature(2, 6, 4, 4, seed=1)
    label = torch.nn.functional.one_hot(indices(2, 4, 4, classes=3), 3).movedim(-1, 1)
    label[:, :, 2:] = 0
    loss = IntraClassFeatureVariationLoss()(student, teacher, label)
    half = IntraClassFeatureVariationLoss()(student[:, :, :2], teacher[:, :, :2], label[:, :, :2])
    torch.testing.assert_close(loss, half / 2)
    balanced = IntraClassFeatureVariationLoss(balance="class")
    torch.testing.assert_close(
        balanced(student, teacher, label), balanced(student[:, :, :2], teacher[:, :, :2], label[:, :, :2])
    )
    loss.backward()
    assert float(student.grad[:, :, 2:].norm()) == 0


@pytest.mark.parametrize("balance", ["none", "class"])
def test_label_without_any_class_is_zero_and_differentiable(balance):
    student = feature(2, 4, 4, 4).requires_grad_()
    loss = IntraClassFeatureVariationLoss(balance=balance)(student, feature(2, 6, 4, 4), torch.zeros(2, 3, 4, 4))
    loss.backward()
    assert loss.item() == 0
    assert float(student.grad.norm()) == 0


def test_small_class_has_as_much_to_say_if_balanced():
    student = feature(1, 4, 8, 8).requires_grad_()
    teacher, label = feature(1, 6, 8, 8, seed=1), torch.zeros(1, 1, 8, 8)
    label[0, 0, 3, 3:5] = 1
    inside = label.bool().expand_as(student)
    plain, balanced = (
        torch.autograd.grad(IntraClassFeatureVariationLoss(balance=b)(student, teacher, label), student)[0][inside]
        for b in ("none", "class")
    )
    torch.testing.assert_close(balanced / plain, torch.full_like(plain, 64 / 2 / 2), rtol=1e-3, atol=0)


def test_student_of_another_size_is_interpolated():
    student, teacher, label = feature(2, 4, 4, 6), feature(2, 6, 8, 3, seed=1), indices(2, 1, 8, 6)
    resized = torch.nn.functional.interpolate(student, (8, 3), mode="bilinear", align_corners=False)
    loss = IntraClassFeatureVariationLoss()
    assert torch.equal(loss(student, teacher, label), loss(resized, teacher, label))


@pytest.mark.parametrize("factor", [1e-4, 1e4])
def test_scale_of_a_feature_does_not_matter(factor):
    student, teacher, label = feature(2, 4, 4, 4), feature(2, 6, 4, 4, seed=1), indices(2, 1, 4, 4)
    loss = IntraClassFeatureVariationLoss()
    torch.testing.assert_close(loss(factor * student, teacher, label), loss(student, teacher, label))
    torch.testing.assert_close(loss(student, factor * teacher, label), loss(student, teacher, label))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mask_resize": "bilinear"}, "`mask_resize` must be one of 'area', 'nearest', but got 'bilinear'"),
        ({"balance": "pixel"}, "`balance` must be one of 'none', 'class', but got 'pixel'"),
        ({"num_classes": 1}, "`num_classes` must be at least 2, the background included, but got 1"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        IntraClassFeatureVariationLoss(**arguments)


def test_label_of_another_class_count_is_refused():
    student, teacher = feature(2, 4, 4, 4), feature(2, 6, 4, 4)
    with pytest.raises(ValueError, match=r"one-hot in 3 channels, but got \(2, 2, 8, 8\)"):
        IntraClassFeatureVariationLoss(num_classes=3)(student, teacher, torch.zeros(2, 2, 8, 8))
