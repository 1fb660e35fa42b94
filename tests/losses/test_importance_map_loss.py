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
from scipy.ndimage import map_coordinates
from skimage.measure import block_reduce

from monai_kd.losses import ImportanceMapLoss

few = settings(max_examples=15, deadline=None)
PAPER = {"exponent": 2, "norm": "l1", "resize": "pool"}


def feature(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def importance(x, exponent):
    """Normalised importance map of one image, (C, *spatial) to (*spatial)."""
    total = (np.abs(x.astype(float)) ** exponent).sum(axis=0)
    return total / np.sqrt((total**2).sum())


def differences(student, teacher, exponent):
    """Difference of the maps of each image."""
    return [importance(s, exponent) - importance(t, exponent) for s, t in zip(student, teacher, strict=True)]


def squared(student, teacher, exponent=4):
    return np.mean([(difference**2).sum() for difference in differences(student, teacher, exponent)])


def absolute(student, teacher, exponent=2):
    return np.mean([np.abs(difference).sum() for difference in differences(student, teacher, exponent)])


def interpolated(x, size):
    """Linear interpolation by scipy, pixels being cells and not points: align_corners=False."""
    axes = [(np.arange(to) + 0.5) * of / to - 0.5 for of, to in zip(x.shape[2:], size, strict=True)]
    grid = np.meshgrid(*axes, indexing="ij")
    return np.stack([[map_coordinates(c, grid, order=1, mode="nearest") for c in image] for image in x.numpy()])


# emkd_imd_exp4_same: EMKD's importance_maps_distillation on features of one size.
def test_equals_released_code(parity_case):
    case = parity_case("emkd_imd_exp4_same")
    loss = ImportanceMapLoss()(case.s, case.t)
    loss.backward()
    assert loss.item() == pytest.approx(case.loss, rel=1e-5)
    assert case.s.grad.norm().item() == pytest.approx(case.grad_norms["s"], rel=1e-4)
    torch.testing.assert_close(case.s.grad, case.grad_s, rtol=1e-4, atol=1e-7)


# at_szagoruyko: the attention transfer of Zagoruyko and Komodakis, which takes the mean over pixels.
def test_exponent_two_is_attention_transfer_times_pixels(parity_case):
    case = parity_case("at_szagoruyko")
    loss = ImportanceMapLoss(exponent=2)(case.s, case.t)
    assert loss.item() == pytest.approx(16 * 16 * case.loss, rel=1e-5)


@few
@given(
    channels=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    spatial=st.lists(st.integers(1, 5), min_size=2, max_size=3),
    exponent=st.sampled_from([1, 1.5, 2, 3, 4]),
)
def test_equals_numpy(channels, spatial, exponent):
    student, teacher = feature(2, channels[0], *spatial), feature(2, channels[1], *spatial, seed=1)
    expected = squared(student.numpy(), teacher.numpy(), exponent)
    assert ImportanceMapLoss(exponent)(student, teacher).item() == pytest.approx(expected, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(
    ("of", "to"), [((4, 6), (8, 8)), ((8, 6), (4, 3)), ((4, 6), (4, 8)), ((2, 4, 3), (4, 4, 6)), ((4, 4, 6), (2, 4, 3))]
)
def test_student_is_interpolated_to_the_teacher(of, to):
    student, teacher = feature(2, 3, *of), feature(2, 5, *to, seed=1)
    expected = squared(interpolated(student, to), teacher.numpy())
    assert ImportanceMapLoss()(student, teacher).item() == pytest.approx(expected, rel=1e-4)


def test_paper_pools_a_larger_student():
    student, teacher = feature(2, 3, 16, 24), feature(2, 5, 4, 6, seed=1)
    expected = absolute(block_reduce(student.numpy(), (1, 1, 4, 4), np.mean), teacher.numpy())
    assert ImportanceMapLoss(**PAPER)(student, teacher).item() == pytest.approx(expected, rel=1e-4)


def test_paper_interpolates_a_smaller_student():
    student, teacher = feature(2, 3, 4, 6), feature(2, 5, 8, 12, seed=1)
    expected = absolute(interpolated(student, (8, 12)), teacher.numpy())
    assert ImportanceMapLoss(**PAPER)(student, teacher).item() == pytest.approx(expected, rel=1e-4)


def test_paper_treats_each_axis_by_itself():
    student, teacher = feature(2, 3, 16, 12, 2), feature(2, 5, 4, 4, 4, seed=1)
    pooled = torch.from_numpy(block_reduce(student.numpy(), (1, 1, 4, 3, 1), np.mean))
    expected = absolute(interpolated(pooled, (4, 4, 4)), teacher.numpy())
    assert ImportanceMapLoss(**PAPER)(student, teacher).item() == pytest.approx(expected, rel=1e-4)


def test_l1_norm_grows_with_the_root_of_the_pixels():
    student, teacher = feature(2, 3, 4, 4), feature(2, 5, 4, 4, seed=1)
    loss = ImportanceMapLoss(norm="l1")
    tiled = loss(student.repeat(1, 1, 3, 3), teacher.repeat(1, 1, 3, 3))
    torch.testing.assert_close(tiled, 3 * loss(student, teacher))


@pytest.mark.parametrize("spatial", [(4, 6), (2, 4, 3)])
def test_class_balance_equals_numpy(spatial):
    student, teacher = feature(2, 3, *spatial), feature(2, 5, *spatial, seed=1)
    label = torch.randint(0, 3, (2, 1, *spatial), generator=torch.Generator().manual_seed(2))
    maps = [np.stack([importance(image, 4) for image in x.numpy()]) for x in (student, teacher)]
    difference = (maps[0] - maps[1]) ** 2
    expected = np.prod(spatial) * np.mean([difference[label[:, 0].numpy() == c].mean() for c in range(3)])
    for num_classes in (None, 3, 4):
        loss = ImportanceMapLoss(balance="class", num_classes=num_classes)
        assert loss(student, teacher, label).item() == pytest.approx(expected, rel=1e-5)


def test_class_balance_weights_cells_by_their_share_of_the_class():
    student, teacher = feature(1, 3, 2, 2), feature(1, 5, 2, 2, seed=1)
    label = torch.zeros(1, 1, 8, 8)
    label[0, 0, 1, 1] = label[0, 0, :4, 4:] = 1  # 1 of 16 pixels of the first cell, and the whole second
    share = np.array([[1 / 16, 1], [0, 0]])
    difference = (importance(student[0].numpy(), 4) - importance(teacher[0].numpy(), 4)) ** 2
    expected = 4 / 2 * sum((difference * m).sum() / m.sum() for m in (share, 1 - share))
    assert ImportanceMapLoss(balance="class")(student, teacher, label).item() == pytest.approx(expected, rel=1e-5)


def test_class_balance_of_equal_classes_is_the_default():
    student, teacher = feature(2, 3, 4, 6), feature(2, 5, 4, 6, seed=1)
    label = (torch.arange(6) % 2).expand(2, 1, 4, 6)
    loss = ImportanceMapLoss(balance="class")(student, teacher, label)
    torch.testing.assert_close(loss, ImportanceMapLoss()(student, teacher))


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1e3, 1e6])
def test_scale_of_a_feature_does_not_matter(scale):
    student, teacher = feature(2, 3, 4, 4), feature(2, 5, 4, 4, seed=1)
    expected = ImportanceMapLoss()(student, teacher)
    torch.testing.assert_close(ImportanceMapLoss()(scale * student, teacher), expected)
    torch.testing.assert_close(ImportanceMapLoss()(student, scale * teacher), expected)


def test_half_features_do_not_overflow():
    student, teacher = feature(2, 3, 4, 4), feature(2, 5, 4, 4, seed=1)
    loss = ImportanceMapLoss()((100 * student).half(), (100 * teacher).half())  # 100^4 is above the largest half
    torch.testing.assert_close(loss, ImportanceMapLoss()(student, teacher), rtol=1e-2, atol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"exponent": 0}, "`exponent` must be a finite number of at least 1, but got 0"),
        ({"exponent": float("nan")}, "`exponent` must be a finite number of at least 1, but got nan"),
        ({"norm": "l2"}, "`norm` must be one of 'squared_l2', 'l1', but got 'l2'"),
        ({"resize": "max"}, "`resize` must be one of 'interpolate', 'pool', but got 'max'"),
        ({"balance": "pixel"}, "`balance` must be one of 'none', 'class', but got 'pixel'"),
        ({"num_classes": 1}, "`num_classes` must be at least 2, the background included, but got 1"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        ImportanceMapLoss(**arguments)


def test_label_of_another_class_count_is_refused():
    loss = ImportanceMapLoss(balance="class", num_classes=3)
    with pytest.raises(ValueError, match=r"one-hot in 3 channels, but got \(2, 2, 8, 8\)"):
        loss(feature(2, 3, 4, 4), feature(2, 5, 4, 4), torch.zeros(2, 2, 8, 8))
