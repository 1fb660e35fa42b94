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
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import expit

from monai_kd.losses import DecoupledKDLoss, KDLoss, LocalAffinityLoss
from monai_kd.losses._activation import OverlapCheck, overlapping_masks


def bernoulli(p: float, q: float) -> float:
    """KL(p || q) of two Bernoulli variables."""
    return p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))


def by_loops(student: torch.Tensor, teacher: torch.Tensor, temperature: float, reverse: bool = False) -> np.ndarray:
    """The divergence of each pixel, summed over the channels, times the square of the temperature."""
    p, q = (expit(logits.double().numpy() / temperature) for logits in (teacher, student))
    p, q = (q, p) if reverse else (p, q)
    values = np.zeros((p.shape[0], *p.shape[2:]))
    for index in np.ndindex(p.shape):
        values[(index[0], *index[2:])] += bernoulli(p[index], q[index])
    return temperature**2 * values


def masks(channels: int, size: tuple[int, ...] = (6, 6)) -> torch.Tensor:
    """Nested classes, as those of a tumour and its parts, and pixels of none."""
    depth = torch.randint(0, channels + 1, (2, 1, *size))
    return torch.cat([(depth > channel).float() for channel in range(channels)], dim=1)


def pair(channels: int = 3, size: tuple[int, ...] = (6, 6)) -> tuple[torch.Tensor, torch.Tensor]:
    return 2 * torch.randn(2, channels, *size), 2 * torch.randn(2, channels, *size)


class TestKDLoss:
    @pytest.mark.parametrize("temperature", [1.0, 4.0])
    @pytest.mark.parametrize("direction", ["forward", "reverse"])
    @pytest.mark.parametrize("size", [(6, 6), (3, 4, 5)])
    def test_value(self, temperature, direction, size):
        student, teacher = pair(size=size)
        value = KDLoss(temperature, direction, activation="sigmoid")(student, teacher)
        expected = by_loops(student, teacher, temperature, direction == "reverse").mean()
        assert value.item() == pytest.approx(expected, rel=1e-5)

    def test_balanced_value(self):
        student, teacher = pair()
        label = masks(3)
        value = KDLoss(2.0, balance="class", activation="sigmoid")(student, teacher, label)
        pixels, own = by_loops(student, teacher, 2.0), label.numpy() > 0
        groups = [~own.any(axis=1), *(own[:, channel] for channel in range(3))]
        assert value.item() == pytest.approx(np.mean([pixels[group].mean() for group in groups]), rel=1e-5)

    def test_balanced_without_a_class_in_the_batch(self):
        student, teacher = pair()
        label = masks(3)
        label[:, 2] = 0
        value = KDLoss(2.0, balance="class", activation="sigmoid")(student, teacher, label)
        pixels, own = by_loops(student, teacher, 2.0), label.numpy() > 0
        groups = [~own.any(axis=1), own[:, 0], own[:, 1]]
        assert value.item() == pytest.approx(np.mean([pixels[group].mean() for group in groups]), rel=1e-5)

    @pytest.mark.parametrize("balance", ["none", "class"])
    @pytest.mark.parametrize("direction", ["forward", "reverse"])
    def test_one_channel_is_the_softmax_over_0_and_z(self, balance, direction):
        student, teacher = pair(1)
        label = masks(1)
        sigmoid = KDLoss(3.0, direction, balance, "sigmoid")(student, teacher, label)
        two = [torch.cat([torch.zeros_like(z), z], dim=1) for z in (student, teacher)]
        torch.testing.assert_close(sigmoid, KDLoss(3.0, direction, balance)(*two, label))
        torch.testing.assert_close(sigmoid, KDLoss(3.0, direction, balance)(student, teacher, label))

    def test_gradient_is_that_of_the_probabilities(self):
        student, teacher = pair()
        student.requires_grad_()
        KDLoss(2.0, activation="sigmoid")(student, teacher).backward()
        expected = 2.0 * ((student / 2).sigmoid() - (teacher / 2).sigmoid()) / (2 * 36)
        torch.testing.assert_close(student.grad, expected.detach())

    def test_opposite_predictions_differ(self):
        everything = torch.full((1, 3, 4, 4), 6.0)
        label = torch.ones(1, 3, 4, 4)
        assert KDLoss(1.0, activation="sigmoid")(-everything, everything, label) > 17
        assert KDLoss(1.0, activation="sigmoid")(everything, everything, label) == 0

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
    @pytest.mark.parametrize("direction", ["forward", "reverse"])
    def test_finite_at_sure_logits(self, dtype, direction):
        student = (1e4 * torch.randn(1, 3, 4, 4)).to(dtype).requires_grad_()
        value = KDLoss(1.0, direction, activation="sigmoid")(student, (1e4 * torch.randn(1, 3, 4, 4)).to(dtype))
        value.backward()
        assert value.isfinite()
        assert student.grad.isfinite().all()

    def test_larger_patch_same_loss(self):
        student, teacher = pair()
        loss, tile = KDLoss(activation="sigmoid"), (2, 1, 2, 3)
        torch.testing.assert_close(loss(student.tile(tile), teacher.tile(tile)), loss(student, teacher))


def affinity(student: np.ndarray, teacher: np.ndarray, order: str) -> float:
    """Of probabilities (H, W, channels): zero and first order, pixel by pixel."""

    def change(y: np.ndarray, i: int, j: int) -> float:
        steps = [step for step in itertools.product((-1, 0, 1), repeat=2) if step != (0, 0)]
        near = [(i + di, j + dj) for di, dj in steps]
        inside = [(a, b) for a, b in near if 0 <= a < y.shape[0] and 0 <= b < y.shape[1]]
        return float(np.mean([np.linalg.norm(y[i, j] - y[place]) for place in inside]))

    total = 0.0
    for i, j in np.ndindex(student.shape[:2]):
        zero = ((student[i, j] - teacher[i, j]) ** 2).sum()
        first = (change(student, i, j) - change(teacher, i, j)) ** 2
        total += {"zero": zero, "first": first, "both": zero + first}[order]
    return total / student[..., 0].size


class TestLocalAffinityLoss:
    @pytest.mark.parametrize("order", ["zero", "first", "both"])
    def test_value(self, order):
        student, teacher = pair(size=(4, 5))
        value = LocalAffinityLoss(order, activation="sigmoid")(student[:1], teacher[:1])
        y = [expit(logits[0].double().movedim(0, -1).numpy()) for logits in (student, teacher)]
        both = [np.concatenate([p, 1 - p], axis=-1) for p in y]
        assert value.item() == pytest.approx(affinity(*both, order), rel=1e-5)

    @pytest.mark.parametrize("balance", ["none", "class"])
    def test_one_channel_is_the_softmax_over_0_and_z(self, balance):
        student, teacher = pair(1)
        label = masks(1)
        one, other = (
            LocalAffinityLoss("both", balance, activation)(student, teacher, label)
            for activation in ("sigmoid", "softmax")
        )
        torch.testing.assert_close(one, other)


LOSSES: list[Any] = [KDLoss(), KDLoss(balance="class"), DecoupledKDLoss(), LocalAffinityLoss()]


class TestRefuses:
    @pytest.mark.parametrize("loss", LOSSES)
    @pytest.mark.parametrize("dtype", [torch.float32, torch.uint8, torch.bool, torch.float16])
    def test_overlapping_classes_under_a_softmax(self, loss, dtype):
        student, teacher = pair()
        label = torch.zeros(2, 3, 6, 6, dtype=dtype)
        label[:, 0] = 1
        loss(student, teacher, label)
        label[1, 2, 3, 3] = 1  # a single pixel, and not in the first batch
        with pytest.raises(ValueError, match=r'classes that overlap .a sum of 2.; .*activation="sigmoid"'):
            loss(student, teacher, label)

    @pytest.mark.parametrize("loss", LOSSES)
    def test_no_shares_and_no_pixel_without_a_class(self, loss):
        student, teacher = pair()
        shares = torch.rand(2, 3, 6, 6).softmax(1).half()
        shares[0, :, 0, 0] = 0
        assert loss(student, teacher, shares).isfinite()

    @pytest.mark.parametrize("kind", [KDLoss, LocalAffinityLoss])
    def test_other_activations(self, kind):
        with pytest.raises(ValueError, match="`activation` must be one of 'softmax', 'sigmoid', but got 'tanh'"):
            kind(activation="tanh")

    @pytest.mark.parametrize("kind", [KDLoss, LocalAffinityLoss])
    @pytest.mark.parametrize(
        ("label", "message"),
        [
            (None, "`label` must be given for"),
            (torch.zeros(2, 1, 6, 6), r"must hold a mask for each channel .*\(2, 1, 6, 6\) and \(2, 3, 6, 6\)"),
            (torch.full((2, 3, 6, 6), 2.0), "`label` must hold 0 and 1 .or shares between. as it is a mask of each cl"),
        ],
    )
    def test_labels_that_are_no_masks(self, kind, label, message):
        with pytest.raises(ValueError, match=message):
            kind(balance="class", activation="sigmoid")(*pair(), label)


class TestOverlapCheck:
    def test_of_labels_of_other_channels_looks_at_none(self):
        check = OverlapCheck("no remedy")
        for label in (None, "a text", torch.ones(1, 4, 2, 2), torch.ones(1, 1, 2, 2), torch.ones(3, 2)):
            check(label, torch.zeros(1, 3, 2, 2))
        check(torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2))

    def test_of_masks_has_the_background_in_front(self):
        label = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]]).view(1, 2, 1, 3)
        found = overlapping_masks(label, torch.zeros(1, 2, 1, 3), "the test")
        assert found[0, :, 0].tolist() == [[0, 0, 1], [1, 0, 0], [1, 1, 0]]

    @pytest.mark.gpu
    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    def test_on_a_device_waits_at_powers_of_two(self):
        check = OverlapCheck("no remedy")
        fine, wrong = torch.zeros(1, 3, 2, 2, device="cuda"), torch.ones(1, 3, 2, 2, device="cuda")
        for label in (fine, fine, wrong):  # the third call looks at nothing
            check(label, fine)
        with pytest.raises(ValueError, match="classes that overlap"):
            check(fine, fine)  # the fourth reads what the third has seen
