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

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import rel_entr, softmax

from monai_kd.losses import ChannelWiseLoss

few = settings(max_examples=15, deadline=None)


def logits(*shape, seed=0):
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# cwd_official_T4: the code released with the paper, on its channel norm.
def test_equals_released_code(parity_case):
    case = parity_case("cwd_official_T4")
    loss = ChannelWiseLoss()(case.s, case.t)
    loss.backward()
    assert loss.item() == pytest.approx(case.loss, rel=1e-5)
    assert case.s.grad.norm().item() == pytest.approx(case.grad_norms["s"], rel=1e-4)
    torch.testing.assert_close(case.s.grad, case.grad_s, rtol=1e-4, atol=1e-8)


@few
@given(
    channels=st.integers(1, 4),
    spatial=st.lists(st.integers(1, 4), min_size=2, max_size=3),
    temperature=st.floats(0.5, 8),
)
def test_equals_scipy_loop(channels, spatial, temperature):
    student, teacher = logits(2, channels, *spatial), logits(2, channels, *spatial, seed=1)
    found = []
    for image in range(2):
        for channel in range(channels):
            p, q = (softmax(x[image, channel].double().numpy().ravel() / temperature) for x in (teacher, student))
            found.append(rel_entr(p, q).sum())
    expected = temperature**2 * np.mean(found)
    assert ChannelWiseLoss(temperature)(student, teacher).item() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_by_hand():
    student, teacher = torch.zeros(1, 1, 1, 2), torch.tensor([[[[0.0, np.log(3)]]]])  # (1/2, 1/2) and (1/4, 3/4)
    expected = 0.25 * np.log(0.5) + 0.75 * np.log(1.5)
    assert ChannelWiseLoss(temperature=1)(student, teacher).item() == pytest.approx(expected)


def test_one_channel_has_a_gradient_at_each_pixel():
    student = logits(2, 1, 4, 4).requires_grad_()
    ChannelWiseLoss()(student, logits(2, 1, 4, 4, seed=1)).backward()
    assert (student.grad != 0).all()


def test_level_of_a_channel_does_not_matter():
    student, teacher = logits(2, 3, 4, 4), logits(2, 3, 4, 4, seed=1)
    expected = ChannelWiseLoss()(student, teacher)
    level = torch.tensor([-5.0, 2.0, 30.0]).reshape(1, 3, 1, 1)
    torch.testing.assert_close(ChannelWiseLoss()(student + level, teacher), expected)
    torch.testing.assert_close(ChannelWiseLoss()(student, teacher - level), expected)


def test_order_of_channels_and_of_pixels_does_not_matter():
    student, teacher = logits(2, 3, 4, 4), logits(2, 3, 4, 4, seed=1)
    expected = ChannelWiseLoss()(student, teacher)
    order = [2, 0, 1]
    torch.testing.assert_close(ChannelWiseLoss()(student[:, order], teacher[:, order]), expected)
    torch.testing.assert_close(ChannelWiseLoss()(student.flip(2).mT, teacher.flip(2).mT), expected)


# the released code takes log(softmax), which is minus infinity here
@pytest.mark.parametrize("spatial", [(8, 8), (4, 4, 4)])
def test_confident_maps_are_finite(spatial):
    student, teacher = torch.zeros(1, 1, 64), torch.zeros(1, 1, 64)
    student[..., 0], teacher[..., 1] = 1e4, 1e4
    student = student.reshape(1, 1, *spatial).requires_grad_()
    loss = ChannelWiseLoss(temperature=1)(student, teacher.reshape(1, 1, *spatial))
    loss.backward()
    assert loss.item() == pytest.approx(1e4)  # the log odds of the pixels
    assert student.grad.flatten()[:2].tolist() == pytest.approx([1.0, -1.0])


def test_gradient_keeps_its_size_over_temperatures():
    def norm(temperature):
        student = logits(2, 2, 16, 16).requires_grad_()
        ChannelWiseLoss(temperature)(student, logits(2, 2, 16, 16, seed=1)).backward()
        return student.grad.norm().item()

    assert 0.95 < norm(32) / norm(16) < 1.05  # without the square it would be a quarter


def test_temperature_follows_a_schedule():
    student, teacher = logits(2, 3, 4, 4), logits(2, 3, 4, 4, seed=1)
    loss = ChannelWiseLoss()
    loss.temperature = 2
    assert torch.equal(loss(student, teacher), ChannelWiseLoss(temperature=2)(student, teacher))


@pytest.mark.parametrize("temperature", [0, -1.0, float("nan"), float("inf")])
def test_temperature_must_be_positive(temperature):
    loss = ChannelWiseLoss()
    with pytest.raises(ValueError, match="`temperature` must be a finite number above 0, but got"):
        loss.temperature = temperature
    with pytest.raises(ValueError, match="`temperature` must be a finite number above 0, but got"):
        ChannelWiseLoss(temperature=temperature)


@pytest.mark.parametrize("shape", [(2, 4, 8, 8), (2, 3, 8, 4), (2, 1, 8, 8)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=r"`student` must have the shape of `teacher`, but got .* and \(2, 3, 8, 8\)"):
        ChannelWiseLoss()(torch.zeros(shape), torch.zeros(2, 3, 8, 8))
