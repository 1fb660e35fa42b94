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

from monai_kd.losses import AttentionTransferLoss, ImportanceMapLoss

few = settings(max_examples=15, deadline=None)


def feature(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def attention(x, exponent=2):
    """Attention maps (B, *spatial), not normalised."""
    return (np.abs(x.numpy().astype(float)) ** exponent).mean(axis=1)


def differences(student, teacher):
    """Difference of the normalised maps of each image, (B, voxels)."""
    rows = [x.reshape(len(x), -1) for x in (student, teacher)]
    student, teacher = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in rows)
    return student - teacher


def interpolated(maps, size):
    """Linear interpolation by scipy, pixels being cells and not points: align_corners=False."""
    axes = [(np.arange(to) + 0.5) * of / to - 0.5 for of, to in zip(maps.shape[1:], size, strict=True)]
    grid = np.meshgrid(*axes, indexing="ij")
    return np.stack([map_coordinates(image, grid, order=1, mode="nearest") for image in maps])


# at_szagoruyko: the code released with the paper.
def test_equals_released_code(parity_case):
    case = parity_case("at_szagoruyko")
    loss = AttentionTransferLoss()(case.s, case.t)
    loss.backward()
    assert loss.item() == pytest.approx(case.loss, rel=1e-5)
    assert case.s.grad.norm().item() == pytest.approx(case.grad_norms["s"], rel=1e-4)
    torch.testing.assert_close(case.s.grad, case.grad_s, rtol=1e-4, atol=1e-9)


@few
@given(
    channels=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    spatial=st.lists(st.integers(1, 5), min_size=2, max_size=3),
    exponent=st.sampled_from([1, 1.5, 2, 3, 4]),
)
def test_equals_numpy(channels, spatial, exponent):
    student, teacher = feature(2, channels[0], *spatial), feature(2, channels[1], *spatial, seed=1)
    difference = differences(attention(student, exponent), attention(teacher, exponent))
    squared = AttentionTransferLoss(exponent)(student, teacher).item()
    assert squared == pytest.approx(np.mean(difference**2), rel=1e-4, abs=1e-6)
    norm = AttentionTransferLoss(exponent, norm="l2")(student, teacher).item()
    assert norm == pytest.approx(np.linalg.norm(difference, axis=1).mean(), rel=1e-4, abs=1e-6)


def test_by_hand():
    student, teacher = torch.zeros(1, 2, 2, 2), torch.zeros(1, 3, 2, 2)
    student[0, 0, 0, 0], teacher[0, :, 1, 1] = 5.0, -2.0  # each active at one pixel, another one
    assert AttentionTransferLoss()(student, teacher).item() == pytest.approx(2 / 4)
    assert AttentionTransferLoss(norm="l2")(student, teacher).item() == pytest.approx(2**0.5)


def test_is_emkd_s_importance_map_loss_over_pixels():
    student, teacher = feature(2, 3, 4, 6), feature(2, 5, 4, 6, seed=1)
    torch.testing.assert_close(24 * AttentionTransferLoss()(student, teacher), ImportanceMapLoss(2)(student, teacher))


@pytest.mark.parametrize("times", [2, 3])
def test_squares_fall_with_the_pixels_and_the_norm_does_not(times):
    student, teacher = feature(2, 3, 4, 4), feature(2, 5, 4, 4, seed=1)
    for loss, factor in ((AttentionTransferLoss(), times**2), (AttentionTransferLoss(norm="l2"), 1)):
        tiled = loss(student.repeat(1, 1, times, times), teacher.repeat(1, 1, times, times))
        torch.testing.assert_close(factor * tiled, loss(student, teacher))


def test_larger_student_is_averaged_over_cells():
    student, teacher = feature(2, 3, 16, 24), feature(2, 5, 4, 6, seed=1)
    pooled = block_reduce(attention(student), (1, 4, 4), np.mean)
    expected = np.mean(differences(pooled, attention(teacher)) ** 2)
    assert AttentionTransferLoss()(student, teacher).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("of", "to"), [((4, 6), (8, 8)), ((2, 4, 3), (4, 4, 6))])
def test_smaller_student_is_interpolated(of, to):
    student, teacher = feature(2, 3, *of), feature(2, 5, *to, seed=1)
    expected = np.mean(differences(interpolated(attention(student), to), attention(teacher)) ** 2)
    assert AttentionTransferLoss()(student, teacher).item() == pytest.approx(expected, rel=1e-4)


def test_each_axis_is_resized_by_itself():
    student, teacher = feature(2, 3, 16, 12, 2), feature(2, 5, 4, 4, 4, seed=1)
    maps = interpolated(block_reduce(attention(student), (1, 4, 3, 1), np.mean), (4, 4, 4))
    expected = np.mean(differences(maps, attention(teacher)) ** 2)
    assert AttentionTransferLoss()(student, teacher).item() == pytest.approx(expected, rel=1e-4)


def test_order_and_sign_of_channels_do_not_matter():
    student, teacher = feature(2, 3, 4, 4), feature(2, 5, 4, 4, seed=1)
    expected = AttentionTransferLoss()(student, teacher)
    torch.testing.assert_close(AttentionTransferLoss()(-student[:, [2, 0, 1]], teacher), expected)


@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1e3, 1e6])
def test_scale_of_a_feature_does_not_matter(scale):
    student, teacher = feature(2, 3, 4, 4), feature(2, 5, 4, 4, seed=1)
    expected = AttentionTransferLoss()(student, teacher)
    torch.testing.assert_close(AttentionTransferLoss()(scale * student, teacher), expected)
    torch.testing.assert_close(AttentionTransferLoss()(student, scale * teacher), expected)


def test_half_features_do_not_overflow():
    student, teacher = feature(2, 3, 4, 4), feature(2, 5, 4, 4, seed=1)
    loss = AttentionTransferLoss()((1000 * student).half(), (1000 * teacher).half())  # 256^2 is above the largest half
    torch.testing.assert_close(loss, AttentionTransferLoss()(student, teacher), rtol=1e-2, atol=0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"exponent": 0.5}, "`exponent` must be a finite number of at least 1, but got 0.5"),
        ({"exponent": float("inf")}, "`exponent` must be a finite number of at least 1, but got inf"),
        ({"norm": "squared_l2"}, "`norm` must be one of 'mean_square', 'l2', but got 'squared_l2'"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        AttentionTransferLoss(**arguments)
