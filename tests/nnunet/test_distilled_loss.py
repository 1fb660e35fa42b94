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

"""nnU-Net's loss with a teacher in it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from monai_kd.networks import Teacher
from monai_kd.nnunet.distilled_loss import DistilledLoss, output_weights


class Levels(nn.Module):
    """Outputs at three resolutions."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layers = nn.ModuleList(nn.Conv2d(1, 3, 2**level, stride=2**level) for level in range(3))

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        return [layer(image) for layer in self.layers]


def supervised(outputs: Any, targets: Any) -> torch.Tensor:
    return sum((output - target).square().mean() for output, target in zip(outputs, targets))


@pytest.fixture
def image() -> torch.Tensor:
    return torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def student() -> Levels:
    return Levels(0)


@pytest.fixture
def teacher() -> Teacher:
    return Teacher(Levels(1))


def targets(outputs: list[torch.Tensor]) -> list[torch.Tensor]:
    return [torch.zeros_like(output) for output in outputs]


def divergence(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    return (teacher.softmax(1) * (teacher.log_softmax(1) - student.log_softmax(1))).sum(1).mean()


def test_value_by_hand(image, student, teacher):
    """2/3 of the full resolution, 1/3 of the next, nothing of the last."""
    loss = DistilledLoss(supervised, teacher, weight=0.5)
    loss.image = image
    own, other = student(image), Levels(1)(image)
    expected = supervised(own, targets(own)) + 0.5 * (
        2 / 3 * divergence(own[0], other[0]) + 1 / 3 * divergence(own[1], other[1])
    )
    torch.testing.assert_close(loss(own, targets(own)), expected)


@pytest.mark.parametrize("number", range(1, 7))
def test_weights_of_outputs_are_nnunets(number):
    weights = output_weights(number)
    assert sum(weights) == pytest.approx(1)
    assert number == 1 or weights[-1] == 0
    halved = weights[:-1]
    assert halved[1:] == pytest.approx([weight / 2 for weight in halved[:-1]])


def test_without_an_image_and_with_weight_0_it_is_nnunets_loss(image, student, teacher):
    own = student(image)
    expected = supervised(own, targets(own))
    assert torch.equal(DistilledLoss(supervised, teacher)(own, targets(own)), expected)
    loss = DistilledLoss(supervised, teacher, weight=0)
    loss.image = image
    assert torch.equal(loss(own, targets(own)), expected)


def test_auto_weight_makes_both_gradients_equal(image, student, teacher):
    loss = DistilledLoss(supervised, teacher)
    loss.image = image
    own = student(image)
    total = loss(own, targets(own))
    alone = supervised(own, targets(own))
    norms = []
    for value in (total - alone, alone):
        gradients = torch.autograd.grad(value, own, retain_graph=True, allow_unused=True)
        norms.append(sum(each.square().sum() for each in gradients if each is not None).sqrt())
    torch.testing.assert_close(norms[0], norms[1])


def test_only_the_student_learns(image, student, teacher):
    loss = DistilledLoss(supervised, teacher, weight=1.0)
    loss.image = image
    own = student(image)
    loss(own, targets(own)).backward()
    assert all(parameter.grad is not None for parameter in student.parameters())
    assert all(parameter.grad is None for parameter in teacher.parameters())


def test_equal_networks_have_nothing_to_teach(image, student):
    loss = DistilledLoss(supervised, Teacher(Levels(0)), weight=100.0)
    loss.image = image
    own = student(image)
    torch.testing.assert_close(loss(own, targets(own)), supervised(own, targets(own)))


def test_state_goes_on(image, student, teacher):
    loss = DistilledLoss(supervised, teacher)
    loss.image = image
    own = student(image)
    loss(own, targets(own))
    other = DistilledLoss(supervised, teacher)
    other.load_state_dict(loss.state_dict())
    assert (other.iteration, other.balancer.scales) == (1, loss.balancer.scales)


def test_other_outputs_are_refused(image, student):
    loss = DistilledLoss(supervised, Teacher(nn.Conv2d(1, 3, 1)))
    loss.image = image
    own = student(image)
    with pytest.raises(ValueError, match="must have outputs of the same shapes, but got .* same configuration"):
        loss(own, targets(own))


@pytest.mark.parametrize("weight", [-1, float("nan"), "much"])
def test_weight_out_of_range(teacher, weight):
    with pytest.raises(ValueError, match="`weight` must be 'auto' or a number >= 0"):
        DistilledLoss(supervised, teacher, weight)
