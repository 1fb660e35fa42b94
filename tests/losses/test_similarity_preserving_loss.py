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
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_kd.losses import SimilarityPreservingLoss

few = settings(max_examples=15, deadline=None)


def feature(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def similarity(x):
    """Similarities by a loop over images, each row of unit length."""
    images = [image.double().numpy().ravel() for image in x]
    products = np.array([[np.dot(a, b) for b in images] for a in images])
    return products / np.sqrt((products**2).sum(axis=1, keepdims=True))


# spkd_kdzoo: a port of which another port gives the same number; no official code is known.
def test_equals_ported_code(parity_case):
    case = parity_case("spkd_kdzoo")
    loss = SimilarityPreservingLoss()(case.s, case.t)
    loss.backward()
    assert loss.item() == pytest.approx(case.loss, rel=1e-5)
    assert case.s.grad.norm().item() == pytest.approx(case.grad_norms["s"], rel=1e-4)
    torch.testing.assert_close(case.s.grad, case.grad_s, rtol=1e-4, atol=1e-8)


@few
@given(
    size=st.integers(2, 5),
    channels=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    spatial=st.lists(st.integers(1, 4), min_size=2, max_size=3),
)
def test_equals_loop_for_features_of_any_shape(size, channels, spatial):
    student, teacher = (
        feature(size, channels[0], *spatial),
        feature(size, channels[1], *[2 * n for n in spatial], seed=1),
    )
    expected = np.mean((similarity(student) - similarity(teacher)) ** 2)
    assert SimilarityPreservingLoss()(student, teacher).item() == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_by_hand():
    student = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).reshape(2, 2, 1, 1)  # two images unlike each other: G = identity
    teacher = torch.ones(2, 3, 1, 1)  # two that are the same: each entry of G is the root of 1/2
    expected = ((1 - 0.5**0.5) ** 2 + 0.5) / 2
    assert SimilarityPreservingLoss()(student, teacher).item() == pytest.approx(expected)


def test_same_similarities_in_another_space_are_no_difference():
    teacher = feature(3, 4, 5, 5)
    rotation = torch.linalg.qr(feature(100, 100, seed=1))[0]
    student = 7 * (teacher.flatten(1) @ rotation).reshape(3, 1, 10, 10)
    assert SimilarityPreservingLoss()(student, teacher).item() < 1e-10


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_order_of_images_does_not_matter(order):
    student, teacher = feature(3, 2, 4, 4), feature(3, 5, 4, 4, seed=1)
    shuffled = SimilarityPreservingLoss()(student[list(order)], teacher[list(order)])
    torch.testing.assert_close(shuffled, SimilarityPreservingLoss()(student, teacher))


def test_repeated_batch_divides_the_loss():
    student, teacher = feature(3, 2, 4, 4), feature(3, 5, 4, 4, seed=1)
    repeated = SimilarityPreservingLoss()(student.repeat(4, 1, 1, 1), teacher.repeat(4, 1, 1, 1))
    torch.testing.assert_close(4 * repeated, SimilarityPreservingLoss()(student, teacher))


@pytest.mark.parametrize("scale", [1e-9, 1e-3, 1e3, 1e9])
def test_scale_of_a_feature_does_not_matter(scale):
    student, teacher = feature(3, 2, 4, 4), feature(3, 5, 4, 4, seed=1)
    expected = SimilarityPreservingLoss()(student, teacher)
    torch.testing.assert_close(SimilarityPreservingLoss()(scale * student, teacher), expected)
    torch.testing.assert_close(SimilarityPreservingLoss()(student, scale * teacher), expected)


def test_half_features_do_not_overflow():
    student, teacher = 100 * feature(3, 2, 8, 8), 100 * feature(3, 5, 8, 8, seed=1)  # products above the largest half
    expected = SimilarityPreservingLoss()(student, teacher)
    torch.testing.assert_close(SimilarityPreservingLoss()(student.half(), teacher.half()), expected, rtol=1e-2, atol=0)


def test_empty_image_gets_no_gradient():
    student, teacher = feature(3, 2, 4, 4), feature(3, 5, 4, 4, seed=1)
    student[1] = 0
    student.requires_grad_()
    SimilarityPreservingLoss()(student, teacher).backward()
    assert torch.isfinite(student.grad).all()
    assert float(student.grad[0].norm()) > 0


def test_batch_of_one_teaches_nothing_and_says_so():
    student, teacher = feature(1, 2, 4, 4).requires_grad_(), feature(1, 5, 4, 4, seed=1)
    with pytest.warns(UserWarning, match="`SimilarityPreservingLoss` needs at least 2 images in a batch, but got 1"):
        loss = SimilarityPreservingLoss()(student, teacher)
    loss.backward()
    assert loss.item() == 0
    assert float(student.grad.norm()) < 1e-7


def test_batch_of_two_does_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        SimilarityPreservingLoss()(feature(2, 2, 4, 4), feature(2, 5, 4, 4, seed=1))
