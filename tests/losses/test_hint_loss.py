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

from monai_kd.handlers import DistillationTerm
from monai_kd.losses import HintLoss
from monai_kd.networks import ChannelAdapter

few = settings(max_examples=15, deadline=None)


def feature(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# fitnet_cirkd: CIRKD's FitNet, whose projection is saved with the case.
def test_equals_released_code(parity_case):
    case = parity_case("fitnet_cirkd")
    adapter = ChannelAdapter(4, 8)
    adapter.projection.weight.data = case.conv_weight
    loss = HintLoss()(adapter(case.s), case.t)
    loss.backward()
    assert loss.item() == pytest.approx(case.loss, rel=1e-5)
    assert case.s.grad.norm().item() == pytest.approx(case.grad_norms["s"], rel=1e-4)
    torch.testing.assert_close(case.s.grad, case.grad_s, rtol=1e-4, atol=1e-8)
    assert float(adapter.projection.weight.grad.norm()) > 0


@few
@given(channels=st.integers(1, 4), spatial=st.lists(st.integers(1, 4), min_size=2, max_size=3))
def test_equals_numpy(channels, spatial):
    student, teacher = feature(2, channels, *spatial), feature(2, channels, *spatial, seed=1)
    expected = np.mean((student.numpy().astype(float) - teacher.numpy()) ** 2)
    assert HintLoss()(student, teacher).item() == pytest.approx(expected, rel=1e-5)


def test_by_hand():
    student, teacher = torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([[[[3.0, 2.0]]]])
    assert HintLoss()(student, teacher).item() == 2.0  # (2^2 + 0^2) / 2


def test_scale_of_both_features_counts_squared():
    student, teacher = feature(2, 3, 4, 4), feature(2, 3, 4, 4, seed=1)
    torch.testing.assert_close(HintLoss()(3 * student, 3 * teacher), 9 * HintLoss()(student, teacher))


@pytest.mark.parametrize("spatial", [(4, 6), (2, 4, 6)])
def test_class_balance_equals_numpy(spatial):
    student, teacher = feature(2, 3, *spatial), feature(2, 3, *spatial, seed=1)
    label = torch.randint(0, 3, (2, 1, *spatial), generator=torch.Generator().manual_seed(2))  # class 3 is absent
    difference = ((student - teacher) ** 2).numpy().mean(axis=1)
    expected = np.mean([difference[label[:, 0].numpy() == c].mean() for c in range(3)])
    for num_classes in (None, 3, 4):
        loss = HintLoss(balance="class", num_classes=num_classes)(student, teacher, label)
        assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_class_balance_weights_cells_by_their_share_of_the_class():
    student, teacher = feature(1, 3, 2, 2), feature(1, 3, 2, 2, seed=1)
    label = torch.zeros(1, 1, 8, 8)
    label[0, 0, 1, 1] = label[0, 0, :4, 4:] = 1  # 1 of 16 pixels of the first cell, and the whole second
    share = np.array([[1 / 16, 1], [0, 0]])
    difference = ((student - teacher) ** 2).numpy().mean(axis=1)[0]
    expected = np.mean([(difference * m).sum() / m.sum() for m in (share, 1 - share)])
    assert HintLoss(balance="class")(student, teacher, label).item() == pytest.approx(expected, rel=1e-5)


def test_class_balance_lifts_a_rare_class_to_the_same_share():
    student, teacher = torch.zeros(1, 2, 10, 10), torch.zeros(1, 2, 10, 10)
    label = torch.zeros(1, 1, 10, 10)
    teacher[..., 4, 4] = label[..., 4, 4] = 1  # networks differ at the only lesion pixel
    assert HintLoss()(student, teacher, label).item() == pytest.approx(1 / 100)
    assert HintLoss(balance="class")(student, teacher, label).item() == pytest.approx(1 / 2)


def test_order_of_channels_does_not_matter():
    student, teacher = feature(2, 3, 4, 4), feature(2, 3, 4, 4, seed=1)
    order = [2, 0, 1]
    torch.testing.assert_close(HintLoss()(student[:, order], teacher[:, order]), HintLoss()(student, teacher))


def test_half_features_do_not_overflow():
    student, teacher = torch.full((1, 2, 4, 4), 600.0).half(), torch.zeros(1, 2, 4, 4).half()
    assert HintLoss()(student, teacher).item() == 360000  # above the largest half


@pytest.mark.parametrize(
    ("of", "to", "adapter"),
    [
        ((2, 16, 8, 8), (2, 32, 8, 8), "ChannelAdapter(16, 32)"),
        ((2, 16, 4, 4), (2, 32, 8, 8), "ChannelAdapter(16, 32, scale_factor=2.0)"),
        ((2, 16, 9, 6), (2, 16, 3, 2), "ChannelAdapter(16, 16, scale_factor=0.3333333333333333)"),
        ((2, 16, 4, 4, 2), (2, 32, 8, 8, 4), "ChannelAdapter(16, 32, spatial_dims=3, scale_factor=2.0)"),
    ],
)
def test_other_shapes_are_refused_and_the_adapter_named_that_fits(of, to, adapter):
    with pytest.raises(ValueError, match="`student` must have the shape of `teacher`, but got") as refused:
        HintLoss()(torch.zeros(of), torch.zeros(to))
    assert f"{of} and {to}; for a feature pass `adapter={adapter}` to the `DistillationTerm`" in str(refused.value)
    term = DistillationTerm(HintLoss(), student_layer="a", teacher_layer="b", adapter=eval(adapter))
    assert HintLoss()(term.adapters[0](torch.zeros(of)), torch.zeros(to)).item() == 0


def test_unequal_resizing_is_left_to_an_own_adapter():
    with pytest.raises(ValueError, match=r"pass an adapter that also resizes to the `DistillationTerm`"):
        HintLoss()(torch.zeros(2, 16, 8, 8), torch.zeros(2, 16, 8, 4))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"balance": "pixel"}, "`balance` must be one of 'none', 'class', but got 'pixel'"),
        ({"num_classes": 1}, "`num_classes` must be at least 2, the background included, but got 1"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        HintLoss(**arguments)
