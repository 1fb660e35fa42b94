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

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.measure import block_reduce

from monai_kd.losses import RegionAffinityLoss

few = settings(max_examples=15, deadline=None)


def feature(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def indices(*shape, classes=3, seed=2):
    return torch.randint(0, classes, shape, generator=torch.Generator().manual_seed(seed))


def cosines(x, label, classes, smooth=0.0):
    """Cosine of each pair of classes in one image by a loop, NaN where one is absent; `smooth` as in the release."""
    blocks = [of // to for of, to in zip(label.shape, x.shape[1:], strict=True)]
    regions = []
    for c in range(classes):
        share = block_reduce((label.numpy() == c).astype(float), tuple(blocks), np.mean)
        count = share.sum() + (smooth if c == 1 else 0)
        regions.append((x.numpy() * share).reshape(x.shape[0], -1).sum(axis=1) / count if count else None)
    return np.array(
        [
            np.nan if a is None or b is None else a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-8)
            for a, b in itertools.combinations(regions, 2)
        ]
    )


def differences(student, teacher, label, classes, **kwargs):
    """Differences of the cosines of the pairs that each image has."""
    found = [
        cosines(s, y[0], classes, **kwargs) - cosines(t, y[0], classes, **kwargs)
        for s, t, y in zip(student, teacher, label, strict=True)
    ]
    return [pairs[~np.isnan(pairs)] for pairs in found]


# emkd_rad: EMKD's region_affinity_distillation. Its mask is in blocks that both ways of resizing keep.
@pytest.mark.parametrize("mask_resize", ["area", "nearest"])
def test_equals_released_code(parity_case, mask_resize):
    case = parity_case("emkd_rad")
    loss = RegionAffinityLoss(mask_resize=mask_resize)(case.s, case.t, case.mask)
    loss.backward()
    assert loss.item() == pytest.approx(case.loss, rel=1e-5)
    assert case.s.grad.norm().item() == pytest.approx(case.grad_norms["s"], rel=1e-4)
    torch.testing.assert_close(case.s.grad, case.grad_s, rtol=1e-4, atol=1e-7)


# The release divides by the zero pixels of background in the first image; its cosines of the second image are recorded.
def test_image_without_background_is_left_out(parity_case):
    case = parity_case("emkd_rad_no_background_in_sample0")
    loss = RegionAffinityLoss()(case.s, case.t, case.mask)
    loss.backward()
    difference = case.extra["contrast_s"][1] - case.extra["contrast_t"][1]
    assert loss.item() == pytest.approx(difference**2 / 2, rel=1e-5)
    assert float(case.s.grad[0].norm()) == 0
    assert torch.isfinite(case.s.grad).all()


@few
@given(
    channels=st.tuples(st.integers(2, 5), st.integers(2, 5)),
    spatial=st.lists(st.integers(1, 3), min_size=2, max_size=3),
    seed=st.integers(0, 99),
)
def test_equals_numpy_loop(channels, spatial, seed):
    # the label is four times and the teacher twice as large as the student
    student = feature(2, channels[0], *spatial, seed=seed)
    teacher = feature(2, channels[1], *(2 * n for n in spatial), seed=seed + 1)
    label = indices(2, 1, *(4 * n for n in spatial), classes=4, seed=seed)
    found = differences(student, teacher, label, 4)
    expected = {
        ("squared", False): [pairs.mean() ** 2 for pairs in found],
        (1, False): [abs(pairs.mean()) for pairs in found],
        (2, False): [abs(pairs.mean()) for pairs in found],
        ("squared", True): [(pairs**2).sum() for pairs in found],
        (1, True): [np.abs(pairs).sum() for pairs in found],
        (2, True): [np.linalg.norm(pairs) for pairs in found],
    }
    for (norm, vector), values in expected.items():
        loss = RegionAffinityLoss(norm=norm, vector=vector)(student, teacher, label)
        assert loss.item() == pytest.approx(np.mean(values), rel=1e-4, abs=1e-6)


def test_only_pairs_of_present_classes_count():
    student, teacher = feature(2, 4, 4, 4), feature(2, 6, 4, 4, seed=1)
    label = 2 * indices(2, 1, 4, 4, classes=2)  # class 1 is absent
    expected = np.mean([pairs[0] ** 2 for pairs in differences(student, teacher, label, 3)])
    for num_classes in (None, 3, 7):
        loss = RegionAffinityLoss(num_classes=num_classes)(student, teacher, label)
        assert loss.item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("smooth", [0.0, 1.0, 1000.0])
def test_one_pixel_more_in_a_class_changes_no_cosine(smooth):
    student, teacher, label = feature(2, 4, 4, 4), feature(2, 6, 4, 4, seed=1), indices(2, 1, 4, 4, classes=2)
    expected = np.mean([pairs[0] ** 2 for pairs in differences(student, teacher, label, 2, smooth=smooth)])
    assert RegionAffinityLoss()(student, teacher, label).item() == pytest.approx(expected, rel=1e-4)


def test_image_without_lesion_counts_as_zero_as_in_the_released_code():
    student, teacher, label = feature(2, 4, 4, 4), feature(2, 6, 4, 4, seed=1), indices(2, 1, 4, 4, classes=2)
    label[0] = 0
    released = np.mean([pairs[0] ** 2 for pairs in differences(student, teacher, label, 2, smooth=1.0)])
    loss = RegionAffinityLoss()(student, teacher, label)
    assert loss.item() == pytest.approx(released, rel=1e-4)
    alone = RegionAffinityLoss()(student[1:], teacher[1:], label[1:])
    torch.testing.assert_close(loss, alone / 2)


def test_batch_without_any_pair_is_zero_and_differentiable():
    student = feature(2, 4, 4, 4).requires_grad_()
    loss = RegionAffinityLoss()(student, feature(2, 6, 4, 4, seed=1), torch.zeros(2, 1, 4, 4))
    loss.backward()
    assert loss.item() == 0
    assert float(student.grad.norm()) == 0


@pytest.mark.parametrize("corner", list(itertools.product(range(0, 8, 3), repeat=2)))
def test_lesion_of_one_pixel_is_seen_at_an_eighth(corner):
    student, teacher = feature(1, 4, 4, 4).requires_grad_(), feature(1, 6, 4, 4, seed=1)
    label = torch.zeros(1, 1, 32, 32)
    label[0, 0, 8 + corner[0], 16 + corner[1]] = 1
    loss = RegionAffinityLoss()(student, teacher, label)
    loss.backward()
    assert loss.item() > 0
    assert float(student.grad[0, :, 1, 2].norm()) > 0
    nearest = RegionAffinityLoss(mask_resize="nearest")(student, teacher, label)
    assert (nearest.item() > 0) == (corner == (0, 0))


@pytest.mark.parametrize("sizes", [(8, 2), (2, 8)])
def test_pair_that_only_one_network_can_see_is_left_out(sizes):
    student, teacher = feature(1, 4, sizes[0], sizes[0]).requires_grad_(), feature(1, 6, sizes[1], sizes[1], seed=1)
    label = torch.zeros(1, 1, 8, 8)
    label[0, 0, 1, 1] = 1
    loss = RegionAffinityLoss(mask_resize="nearest")(student, teacher, label)
    loss.backward()
    assert loss.item() == 0
    assert float(student.grad.norm()) == 0
    assert RegionAffinityLoss()(student, teacher, label).item() > 0


def test_order_of_classes_does_not_matter():
    student, teacher, label = feature(2, 4, 4, 4), feature(2, 6, 4, 4, seed=1), indices(2, 1, 8, 8)
    for order, vector in itertools.product(itertools.permutations(range(3)), [False, True]):
        loss = RegionAffinityLoss(vector=vector)
        torch.testing.assert_close(loss(student, teacher, torch.tensor(order)[label]), loss(student, teacher, label))


def test_vector_keeps_opposite_errors():
    # in two planes at once: one pair of regions closes as far as the other opens
    def regions(angles):
        return torch.tensor([[np.cos(a), np.sin(a)] for a in angles], dtype=torch.float32).T.reshape(1, 2, 1, 3)

    label = torch.tensor([[[[0, 1, 2]]]])
    student, teacher = regions([0, 0.5, 1.5]), regions([0, 1.0, 1.5])
    assert RegionAffinityLoss()(student, teacher, label).item() == pytest.approx(0, abs=1e-12)
    assert RegionAffinityLoss(vector=True)(student, teacher, label).item() > 0.2


def test_region_without_activation_gets_no_gradient():
    student, teacher, label = feature(2, 4, 4, 4), feature(2, 6, 4, 4, seed=1), indices(2, 1, 4, 4, classes=2)
    student = torch.where(label == 1, torch.zeros(()), student).requires_grad_()
    loss = RegionAffinityLoss()(student, teacher, label)
    loss.backward()
    assert torch.isfinite(loss)
    assert float(student.grad.abs().max()) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"norm": 3}, "`norm` must be one of 1, 2, 'squared', but got 3"),
        ({"mask_resize": "bilinear"}, "`mask_resize` must be one of 'area', 'nearest', but got 'bilinear'"),
        ({"num_classes": 1}, "`num_classes` must be at least 2, the background included, but got 1"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        RegionAffinityLoss(**arguments)


def test_label_of_another_class_count_is_refused():
    student, teacher = feature(2, 4, 4, 4), feature(2, 6, 4, 4)
    with pytest.raises(ValueError, match=r"one-hot in 3 channels, but got \(2, 2, 8, 8\)"):
        RegionAffinityLoss(num_classes=3)(student, teacher, torch.zeros(2, 2, 8, 8))
    with pytest.raises(ValueError, match="`label` must hold whole class indices from 0 to 2, but got 3"):
        RegionAffinityLoss(num_classes=3)(student, teacher, torch.full((2, 1, 8, 8), 3))


def test_double_is_computed_in_double():
    generator = torch.Generator().manual_seed(0)
    maps = [torch.rand(2, 3, 8, 8, generator=generator, dtype=torch.float64) for _ in range(2)]
    label = torch.randint(0, 2, (2, 1, 8, 8), generator=generator)
    value = RegionAffinityLoss(num_classes=2)(*maps, label)
    single = RegionAffinityLoss(num_classes=2)(*(x.float() for x in maps), label)
    assert value.dtype == torch.float64
    torch.testing.assert_close(value.float(), single)
