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

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.data import MetaTensor

from monai_kd.losses import KDLoss
from monai_kd.networks.soft_label import as_logits, as_soft_label


def drawn_logits(seed: int, classes: int, scale: float, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(2, classes, 3, 4, generator=generator, dtype=dtype)


@given(
    seed=st.integers(0, 10**6),
    classes=st.integers(2, 5),
    scale=st.sampled_from([0.1, 3.0, 20.0]),
    temperature=st.sampled_from([0.5, 1.0, 4.0, 20.0]),
)
def test_any_temperature_says_the_same_as_of_the_logits_before(seed, classes, scale, temperature):
    before = drawn_logits(seed, classes, scale)
    after = as_logits(as_soft_label(before))
    torch.testing.assert_close((after / temperature).softmax(1), (before / temperature).softmax(1), atol=2e-6, rtol=0)


@given(seed=st.integers(0, 10**6), temperature=st.sampled_from([1.0, 4.0]))
def test_tempered_softmax_is_the_root_of_the_probabilities(seed, temperature):
    soft_label = drawn_logits(seed, 3, 2.0, torch.float64).softmax(1)
    root = soft_label ** (1 / temperature)
    torch.testing.assert_close((as_logits(soft_label) / temperature).softmax(1), root / root.sum(1, keepdim=True))


@given(seed=st.integers(0, 10**6), temperature=st.sampled_from([1.0, 4.0]), scale=st.sampled_from([0.1, 3.0, 8.0]))
def test_one_channel_is_the_foreground(seed, temperature, scale):
    before = drawn_logits(seed, 1, scale)
    after = as_logits(as_soft_label(before))
    expected = (before.clamp(max=math.log(2**24 - 1)) / temperature).sigmoid()
    torch.testing.assert_close(
        (after / temperature).sigmoid(), expected, atol=1e-6 if temperature == 1 else 4e-3, rtol=0
    )
    two = torch.cat([1 - before.sigmoid(), before.sigmoid()], 1)
    torch.testing.assert_close(as_logits(two).softmax(1)[:, 1:], after.sigmoid())


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("classes", [1, 2, 4])
def test_kd_loss_sees_the_soft_label(classes, temperature):
    student, teacher = (drawn_logits(seed, classes, 3.0) for seed in (0, 1))
    loss = KDLoss(temperature=temperature)
    repaired = as_logits(as_soft_label(teacher))
    torch.testing.assert_close(loss(student, repaired), loss(student, teacher), rtol=1e-5, atol=1e-6)


@given(seed=st.integers(0, 10**6), classes=st.integers(2, 5), steps=st.integers(1, 3))
def test_most_probable_class_by_the_last_bit_stays(seed, classes, steps):
    """Probabilities that differ in their last bits, whose logarithms may be equal."""
    generator = torch.Generator().manual_seed(seed)
    low = (1 / classes) * (1 - torch.rand(1, 1, 8, 8, generator=generator) * 1e-3)
    soft_label = low.expand(1, classes, 8, 8).clone()
    top = torch.randint(classes, (1, 1, 8, 8), generator=generator)
    high = low.clone()
    for _ in range(steps):
        high = torch.nextafter(high, torch.ones(()))
    soft_label.scatter_(1, top, high)
    logits = as_logits(soft_label)
    assert torch.equal(logits.argmax(1, keepdim=True), top)
    assert (logits.amax(1) == 0).all()
    assert ((logits == 0).sum(1) == 1).all()


def test_one_channel_keeps_its_side_of_a_half():
    half = torch.tensor(0.5)
    values = torch.stack([torch.nextafter(half, torch.zeros(())), half, torch.nextafter(half, torch.ones(()))])
    assert as_logits(values.view(1, 1, 1, 3)).sign().flatten().tolist() == [-1, 0, 1]


def test_certainty_is_finite_and_stays_certain():
    sure = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
    assert as_logits(sure).flatten().tolist() == pytest.approx([0, -87.3365, -87.3365])
    assert torch.equal(as_logits(sure).softmax(1) > 0.5, sure > 0.5)
    one = torch.tensor([1.0, 0.0]).view(1, 1, 1, 2)
    assert as_logits(one).flatten().tolist() == pytest.approx([math.log(2**24 - 1), -87.3365])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_becomes_single(dtype):
    logits = drawn_logits(0, 3, 3.0).to(dtype)
    soft_label = as_soft_label(logits)
    assert soft_label.dtype == torch.float32
    assert torch.equal(soft_label, logits.float().softmax(1))
    assert as_logits(soft_label.to(dtype)).dtype == torch.float32
    assert as_soft_label(logits.double()).dtype == torch.float64


def test_no_gradient_and_no_metadata():
    logits = MetaTensor(drawn_logits(0, 3, 3.0)).requires_grad_()
    for result in (as_soft_label(logits), as_logits(logits.softmax(1))):
        assert not result.requires_grad
        assert not isinstance(result, MetaTensor)
