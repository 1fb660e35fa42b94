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
from monai.data import MetaTensor

from monai_kd.losses._inputs import as_inputs, autocast_disabled, class_balanced_mean, one_hot_label, resize

FEATURE = torch.zeros(2, 4, 6, 6)


def indices(high=3, seed=0):
    return torch.randint(0, high, (2, 1, 6, 6), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("convert", [torch.Tensor.long, torch.Tensor.float, torch.Tensor.half, MetaTensor])
def test_indices_of_any_type_become_numpy_one_hot(convert):
    label = indices()
    expected = np.moveaxis(np.eye(3)[label[:, 0].numpy()], -1, 1)
    mask = one_hot_label(convert(label), FEATURE, 3, "the test")
    assert type(mask) is torch.Tensor
    assert mask.dtype == FEATURE.dtype
    np.testing.assert_array_equal(mask.numpy(), expected)


def test_one_hot_passes_through():
    mask = one_hot_label(indices(), FEATURE, 3, "the test")
    for same in (mask, mask.long(), MetaTensor(mask)):
        np.testing.assert_array_equal(one_hot_label(same, FEATURE, 3, "the test"), mask)
        np.testing.assert_array_equal(one_hot_label(same, FEATURE, None, "the test"), mask)


@pytest.mark.parametrize(("largest", "classes"), [(0, 2), (1, 2), (2, 3)])
def test_unnamed_class_count_is_read_off_the_indices(largest, classes):
    label = torch.full((2, 1, 6, 6), largest)
    assert one_hot_label(label, FEATURE, None, "the test").shape[1] == classes


def test_boolean_mask_has_two_classes():
    label = indices(2) > 0
    np.testing.assert_array_equal(one_hot_label(label, FEATURE, None, "the test")[:, 1:], label)


def test_class_balanced_mean_skips_absent_classes():
    values = torch.tensor([[[1.0, 2.0], [3.0, 100.0]]])
    mask = one_hot_label(torch.tensor([[[[0, 0], [0, 2]]]]), values.unsqueeze(1), 4, "the test")
    assert float(class_balanced_mean(values, mask)) == pytest.approx((2 + 100) / 2)


def test_class_balanced_mean_of_no_class_is_zero():
    assert float(class_balanced_mean(torch.ones(1, 2, 2), torch.zeros(1, 3, 2, 2))) == 0


def test_resize_keeps_what_has_the_size():
    assert resize(FEATURE, (6, 6), "area") is FEATURE


def test_device_without_autocast_is_let_be():
    with autocast_disabled(torch.zeros(1, device="meta")):
        pass


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (None, "`label` must be given for the test, but got None"),
        (torch.zeros(2, 6, 6), r"number of dimensions of `student`, but got \(2, 6, 6\) and .*unsqueeze"),
        (torch.zeros(3, 1, 6, 6), r"batch size .* of `student`, but got \(3, 1, 6, 6\) and \(2, 4, 6, 6\)"),
        (torch.zeros(2, 2, 6, 6), r"one-hot in 3 channels, but got \(2, 2, 6, 6\)"),
        (torch.full((2, 1, 6, 6), 3), "whole class indices from 0 to 2, but got 3"),
        (torch.full((2, 1, 6, 6), -1), "whole class indices from 0 to 2, but got -1"),
        (torch.full((2, 1, 6, 6), 0.7), "whole class indices from 0 to 2, but got 0.7"),
        (torch.full((2, 1, 6, 6), float("nan")), "whole class indices from 0 to 2, but got nan"),
    ],
)
def test_wrong_label_is_refused(label, message):
    with pytest.raises(ValueError, match=message):
        one_hot_label(label, FEATURE, 3, "the test")


@pytest.mark.parametrize("value", [255.0, -1.0, 1.5, float("nan"), float("inf")])
def test_one_hot_label_that_is_no_mask_is_refused(value):
    label = one_hot_label(indices(), FEATURE, 3, "the test")
    label[1, 2, 3, 4] = value
    message = rf"`label` must hold 0 and 1 \(or shares between\) as it is one-hot, but got {value:g}"
    with pytest.raises(ValueError, match=message):
        one_hot_label(label, FEATURE, 3, "the test")


def test_one_hot_label_may_hold_shares_and_pixels_of_no_class():
    label = 0.5 * one_hot_label(indices(), FEATURE, 3, "the test")
    label[..., 0] = 0
    assert torch.equal(one_hot_label(label, FEATURE, 3, "the test"), label)


@pytest.mark.parametrize(("value", "shown"), [(float("nan"), "nan"), (-1.0, "-1"), (0.5, "0.5")])
def test_wrong_indices_are_refused_before_their_classes_are_counted(value, shown):
    label = indices().float()
    label[1, 0, 3, 4] = value
    with pytest.raises(ValueError, match=f"`label` must hold whole class indices from 0 up, but got {shown}"):
        one_hot_label(label, FEATURE, None, "the test")


@pytest.mark.parametrize("channels", [1, 3])
def test_values_on_an_accelerator_are_not_waited_for(channels):
    """`meta` has no values at all: whatever reads one fails."""
    label = torch.zeros(2, channels, 6, 6, device="meta")
    assert one_hot_label(label, FEATURE.to("meta"), 3, "the test").shape == (2, 3, 6, 6)


@pytest.mark.parametrize(
    ("student", "teacher", "message"),
    [
        (torch.zeros(2, 3), FEATURE, r"`student` must be of shape \(B, C, H, W\) .* but got \(2, 3\)"),
        (FEATURE, torch.zeros(2, 3), r"`teacher` must be of shape \(B, C, H, W\) .* but got \(2, 3\)"),
        (FEATURE, FEATURE[:1], r"batch size .* of `teacher`, but got \(2, 4, 6, 6\) and \(1, 4, 6, 6\)"),
        (FEATURE, FEATURE[:, :, None], r"number of dimensions of `teacher`, but got .* and \(2, 4, 1, 6, 6\)"),
    ],
)
def test_wrong_shapes_are_refused(student, teacher, message):
    with pytest.raises(ValueError, match=message):
        as_inputs(student, teacher)


def test_list_of_outputs_is_refused():
    with pytest.raises(TypeError, match="`student` must be a tensor, but got list; pass one output at a time"):
        as_inputs([FEATURE], FEATURE)
