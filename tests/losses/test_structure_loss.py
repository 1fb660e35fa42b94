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
from monai.losses import DeepSupervisionLoss
from scipy.ndimage import uniform_filter
from scipy.special import expit, log_expit

from monai_kd.losses import StructureLoss

few = settings(max_examples=15, deadline=None)


def batch(*spatial, size=2, seed=0, dtype=torch.float32):
    """Logits and a label with a box in it."""
    draw = torch.Generator().manual_seed(seed)
    label = torch.zeros(size, 1, *spatial, dtype=dtype)
    label[(..., *(slice(length // 4, length // 4 + (length + 1) // 2) for length in spatial))] = 1
    return 2 * torch.randn(size, 1, *spatial, generator=draw, dtype=dtype), label


def structure(logits, label, window=31, boundary_weight=5, weighted_bce=True):
    """The formula for one image and channel, by scipy."""
    z, y = logits.numpy().astype(float), label.numpy().astype(float)
    sides = [min(window, length if length % 2 else length - 1) for length in y.shape]
    w = 1 + boundary_weight * np.abs(uniform_filter(y, sides, mode="constant") - y)
    entropy = -(y * log_expit(z) + (1 - y) * log_expit(-z))
    overlap, union = (w * expit(z) * y).sum(), (w * (expit(z) + y - expit(z) * y)).sum()
    bce = (w * entropy).sum() / w.sum() if weighted_bce else entropy.mean()
    return bce + 1 - (overlap + 1) / (union + 1)


# kdas_structure_loss_P1: structure_loss of the code released with KDAS, in which the weight of the BCE cancels.
def test_unweighted_bce_equals_released_code(parity_case):
    case = parity_case("kdas_structure_loss_P1")
    loss = StructureLoss(weighted_bce=False)(case.s, case.mask)
    loss.backward()
    assert loss.item() == pytest.approx(case.loss, rel=1e-5)
    assert case.s.grad.norm().item() == pytest.approx(case.grad_norms["s"], rel=1e-4)
    torch.testing.assert_close(case.s.grad, case.grad_s, rtol=1e-4, atol=1e-8)


def test_default_is_the_form_that_was_meant(parity_case):
    case = parity_case("kdas_structure_loss_P1")
    assert StructureLoss()(case.s, case.mask).item() == pytest.approx(1.7301, abs=5e-5)


@few
@given(
    spatial=st.lists(st.integers(1, 9), min_size=2, max_size=3),
    window=st.sampled_from([1, 3, 5, 31]),
    boundary_weight=st.floats(0, 8),
    weighted_bce=st.booleans(),
    seed=st.integers(0, 99),
)
def test_equals_scipy(spatial, window, boundary_weight, weighted_bce, seed):
    logits, label = batch(*spatial, seed=seed)
    arguments = (window, boundary_weight, weighted_bce)
    expected = np.mean([structure(z[0], y[0], *arguments) for z, y in zip(logits, label)])
    assert StructureLoss(*arguments)(logits, label).item() == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_channels_are_foregrounds_of_their_own():
    (first, label), (second, _) = batch(8, 8), batch(8, 8, seed=1)
    loss = StructureLoss()
    both = loss(torch.cat([first, second], 1), torch.cat([label, 1 - label], 1))
    torch.testing.assert_close(both, (loss(first, label) + loss(second, 1 - label)) / 2)


def test_an_error_at_the_boundary_costs_more():
    _, label = batch(64, 64, size=1)  # a box from 16 to 48
    losses = []
    for row in (16, 32):
        logits = 20 * label - 10
        logits[..., row, 32] *= -1  # one pixel of foreground is missed
        losses.append(StructureLoss(window=7)(logits, label).item())
    assert losses[0] > 2 * losses[1]


def test_two_dimensions_equal_three_with_depth_one():
    logits, label = batch(7, 8)
    torch.testing.assert_close(StructureLoss()(logits[:, :, None], label[:, :, None]), StructureLoss()(logits, label))


def test_certain_and_right_costs_nothing():
    _, label = batch(16, 16)
    for y in (label, torch.zeros_like(label), torch.ones_like(label)):
        assert StructureLoss()(200 * y - 100, y).item() == 0


def test_gradient_is_the_slope_of_the_value():
    logits, label = batch(4, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda logits: StructureLoss(window=3)(logits, label), logits.requires_grad_())


@pytest.mark.parametrize("dtype", [torch.uint8, torch.bool, torch.int64, torch.float16])
def test_label_of_any_type(dtype):
    logits, label = batch(8, 8)
    assert torch.equal(StructureLoss()(logits, label.to(dtype)), StructureLoss()(logits, label))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_single(dtype):
    logits, label = batch(8, 8)
    logits = (5e3 * logits).to(dtype)
    expected = StructureLoss()(logits.float(), label)
    assert torch.isfinite(expected)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(StructureLoss()(logits, label), expected)


def test_deep_supervision_sums_the_scales():
    (first, label), (second, _) = batch(8, 8), batch(8, 8, seed=1)
    loss = StructureLoss()
    summed = DeepSupervisionLoss(loss, weight_mode="same")([first, second], label)
    torch.testing.assert_close(summed, loss(first, label) + loss(second, label))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"window": 30}, "`window` must be an odd number of pixels above 0, but got 30"),
        ({"window": -1}, "`window` must be an odd number of pixels above 0, but got -1"),
        ({"boundary_weight": -1.0}, "`boundary_weight` must be at least 0, but got -1.0"),
        ({"boundary_weight": float("nan")}, "`boundary_weight` must be at least 0, but got nan"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        StructureLoss(**arguments)


def test_wrong_inputs_are_refused():
    logits, label = batch(8, 8)
    with pytest.raises(ValueError, match=r"`input` must have the shape of `target`, but got \(2, 2, 8, 8\) and"):
        StructureLoss()(logits.repeat(1, 2, 1, 1), label)
    with pytest.raises(ValueError, match=r"`target` must be of shape .*, but got \(2, 8, 8\)"):
        StructureLoss()(logits, label[:, 0])
    for odd in (255.0, -1.0, float("nan"), float("inf")):
        message = rf"`target` must hold 0 and 1 \(or shares between\) as it is a foreground, but got {odd:g}"
        with pytest.raises(ValueError, match=message):
            StructureLoss()(logits, torch.where(label > 0, odd, 0.0))
    with pytest.raises(TypeError, match="`input` must be a tensor, but got list"):
        StructureLoss()([logits], label)
