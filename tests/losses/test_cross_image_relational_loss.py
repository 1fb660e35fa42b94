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

from monai_kd.losses import CrossImageRelationalLoss

few = settings(max_examples=15, deadline=None)


def feature(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def indices(*shape, classes=3, seed=2):
    return torch.randint(0, classes, shape, generator=torch.Generator().manual_seed(seed))


def divergences(student, teacher, temperature):
    """KL of each pixel p of each image i, averaged over the images j, by a loop: (B, pixels)."""

    def units(x):
        x = x.numpy().astype(float).reshape(*x.shape[:2], -1)
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    student, teacher = units(student), units(teacher)
    images, pixels = range(student.shape[0]), range(student.shape[2])
    found = np.zeros((len(images), len(images), len(pixels)))
    for i, j, p in itertools.product(images, images, pixels):
        at_student, at_teacher = (softmax(x[i, :, p] @ x[j] / temperature) for x in (student, teacher))
        found[i, j, p] = rel_entr(at_teacher, at_student).sum()
    return found.mean(axis=1)


# cirkd_minibatch_T0.1: CIRKD's CriterionMiniBatchCrossImagePair on three images
def test_equals_released_code(parity_case):
    case = parity_case("cirkd_minibatch_T0.1")
    loss = CrossImageRelationalLoss()(case.s, case.t)
    loss.backward()
    assert loss.item() == pytest.approx(case.loss, rel=1e-5)
    assert case.s.grad.norm().item() == pytest.approx(case.grad_norms["s"], rel=1e-4)
    torch.testing.assert_close(case.s.grad, case.grad_s, rtol=1e-4, atol=1e-7)


@few
@given(
    channels=st.tuples(st.integers(2, 5), st.integers(2, 5)),
    spatial=st.lists(st.integers(1, 3), min_size=2, max_size=3),
    temperature=st.floats(0.1, 4),
    size=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_equals_scipy_loop(channels, spatial, temperature, size, seed):
    student = feature(size, channels[0], *spatial, seed=seed)
    teacher = feature(size, channels[1], *spatial, seed=seed + 1)
    label = indices(size, 1, *spatial, seed=seed)
    expected = divergences(student, teacher, temperature)
    loss = CrossImageRelationalLoss(temperature)(student, teacher)
    assert loss.item() == pytest.approx(expected.mean(), rel=1e-4, abs=1e-6)
    of = label.flatten(1).numpy()
    by_class = [expected[of == c].mean() for c in range(3) if (of == c).any()]
    balanced = CrossImageRelationalLoss(temperature, balance="class")(student, teacher, label)
    assert balanced.item() == pytest.approx(np.mean(by_class), rel=1e-4, abs=1e-6)


def test_two_pixels_by_hand():
    # cosines of each pixel with itself and the other: 1 and 0 in the student, 1 and 1 in the teacher
    student = torch.tensor([[[[1.0, 0.0]], [[0.0, 2.0]]]])
    teacher = torch.ones(1, 3, 1, 2)
    p = np.exp(1) / (np.exp(1) + 1)
    expected = 0.5 * np.log(0.5 / p) + 0.5 * np.log(0.5 / (1 - p))
    assert CrossImageRelationalLoss(temperature=1)(student, teacher).item() == pytest.approx(expected)


def test_images_are_compared_with_one_another():
    # within each image all pixels are alike in both networks, so that only the pairs of images can differ
    student = feature(2, 4, 1, 1).expand(2, 4, 3, 3)
    teacher = torch.cat([student[:1], feature(1, 4, 3, 3, seed=1)])
    alone = sum(CrossImageRelationalLoss()(student[[i]], teacher[[i]]) for i in range(2)) / 2
    mixed = CrossImageRelationalLoss()(student, teacher)
    assert alone.item() > 0
    assert abs(mixed.item() - alone.item()) > 1e-3
    assert mixed.item() == pytest.approx(divergences(student, teacher, 0.1).mean(), rel=1e-4)


@pytest.mark.parametrize("spatial", [(2, 3), (2, 2, 3)])
def test_order_of_images_and_pixels_and_turned_channels_do_not_matter(spatial):
    student, teacher = feature(3, 4, *spatial), feature(3, 4, *spatial, seed=1)
    loss = CrossImageRelationalLoss()
    expected = loss(student, teacher)
    torch.testing.assert_close(loss(student[[2, 0, 1]], teacher[[2, 0, 1]]), expected)
    order = torch.randperm(student[0, 0].numel(), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(
        loss(*(x.flatten(2)[:, :, order].reshape(x.shape) for x in (student, teacher))), expected
    )
    turn = torch.linalg.qr(feature(4, 4, seed=2))[0]
    torch.testing.assert_close(loss(torch.einsum("dc,bc...->bd...", turn, student), teacher), expected)


@pytest.mark.parametrize("factor", [1e-4, 1e4])
def test_scale_of_a_feature_does_not_matter(factor):
    student, teacher = feature(2, 4, 3, 3), feature(2, 6, 3, 3, seed=1)
    expected = CrossImageRelationalLoss()(student, teacher)
    torch.testing.assert_close(CrossImageRelationalLoss()(factor * student, teacher), expected)
    torch.testing.assert_close(CrossImageRelationalLoss()(student, factor * teacher), expected)


@pytest.mark.parametrize(("pool", "grid"), [(4, (2, 3)), (None, (2, 3)), (1, (1, 1))])
@pytest.mark.parametrize("turned", [False, True])
def test_grid_is_that_of_the_smaller_map(pool, grid, turned):
    student, teacher = feature(2, 4, 2, 6), feature(2, 6, 4, 3, seed=1)
    maps = (teacher, student) if turned else (student, teacher)
    pooled = [torch.nn.functional.adaptive_avg_pool2d(x, grid) for x in maps]
    assert torch.equal(CrossImageRelationalLoss(pool=pool)(*maps), CrossImageRelationalLoss()(*pooled))


def test_pooled_maps_and_label():
    student, teacher, label = feature(2, 4, 4, 6), feature(2, 6, 8, 6, seed=1), indices(2, 1, 8, 6)
    pooled = [torch.nn.functional.adaptive_avg_pool2d(x, (3, 3)) for x in (student, teacher)]
    assert torch.equal(CrossImageRelationalLoss(pool=3)(student, teacher), CrossImageRelationalLoss()(*pooled))
    share = torch.nn.functional.one_hot(label[:, 0], 3).movedim(-1, 1).float()
    share = torch.nn.functional.adaptive_avg_pool2d(share, (3, 3))
    balanced = CrossImageRelationalLoss(pool=3, balance="class", num_classes=3)(student, teacher, label)
    values = divergences(*pooled, 0.1)
    of = share.flatten(2).numpy()
    expected = [(values * of[:, c]).sum() / of[:, c].sum() for c in range(3)]
    assert balanced.item() == pytest.approx(np.mean(expected), rel=1e-4)


def test_pixel_without_activation_gets_no_gradient():
    student, teacher = feature(2, 4, 3, 3), feature(2, 6, 3, 3, seed=1)
    student[:, :, 1, 2] = 0
    student.requires_grad_()
    CrossImageRelationalLoss()(student, teacher).backward()
    assert torch.isfinite(student.grad).all()
    assert float(student.grad[:, :, 1, 2].norm()) == 0
    assert float(student.grad[:, :, 0, 0].norm()) > 0


@pytest.mark.parametrize(("shape", "most"), [((8, 1, 48, 48), 45), ((2, 1, 24, 24, 24), 20)])
def test_too_many_pixels_are_refused_before_they_are_compared(shape, most):
    student = torch.zeros(shape)
    with pytest.raises(ValueError, match=rf"similarities of [\d.]+ GiB .*; pass a `pool` of at most {most}\.$"):
        CrossImageRelationalLoss()(student, student)
    assert (shape[0] * most ** (len(shape) - 2)) ** 2 <= 2**28 < (shape[0] * (most + 1) ** (len(shape) - 2)) ** 2
    assert CrossImageRelationalLoss(pool=4)(student, student).item() == 0


def test_temperature_may_be_set_while_training():
    student, teacher = feature(2, 4, 3, 3), feature(2, 6, 3, 3, seed=1)
    loss = CrossImageRelationalLoss()
    loss.temperature = 1.0
    assert torch.equal(loss(student, teacher), CrossImageRelationalLoss(temperature=1)(student, teacher))
    with pytest.raises(ValueError, match="`temperature` must be a finite number above 0, but got 0"):
        loss.temperature = 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": -1}, "`temperature` must be a finite number above 0, but got -1"),
        ({"pool": 0}, "`pool` must be None or a whole number of cells above 0, but got 0"),
        ({"balance": "pixel"}, "`balance` must be one of 'none', 'class', but got 'pixel'"),
        ({"num_classes": 1}, "`num_classes` must be at least 2, the background included, but got 1"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        CrossImageRelationalLoss(**arguments)
