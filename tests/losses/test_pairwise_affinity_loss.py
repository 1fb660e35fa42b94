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
from skimage.measure import block_reduce

from monai_kd.losses import PairwiseAffinityLoss

few = settings(max_examples=15, deadline=None)


def feature(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def affinities(node):
    """Cosine of each two nodes of one image by a loop, from (C, *grid)."""
    node = node.reshape(node.shape[0], -1).astype(float).T
    unit = [vector / np.linalg.norm(vector) for vector in node]
    return np.array([[a @ b for b in unit] for a in unit])


# pa_sim_dis_compute_full: SKD's sim_dis_compute on all pixels. pa_official_scale0.5: its criterion with the pooling.
@pytest.mark.parametrize(("name", "pool"), [("pa_sim_dis_compute_full", None), ("pa_official_scale0.5", 2)])
def test_equals_released_code(parity_case, name, pool):
    case = parity_case(name)
    loss = PairwiseAffinityLoss(pool=pool)(case.s, case.t)
    loss.backward()
    assert loss.item() == pytest.approx(case.loss, rel=1e-5)
    assert case.s.grad.norm().item() == pytest.approx(case.grad_norms["s"], rel=1e-4)
    torch.testing.assert_close(case.s.grad, case.grad_s, rtol=1e-4, atol=1e-7)


def test_default_is_the_released_one(parity_case):
    case = parity_case("pa_official_scale0.5")
    assert PairwiseAffinityLoss()(case.s, case.t).item() == pytest.approx(case.loss, rel=1e-5)


def test_true_gradient_has_the_same_value_and_keeps_the_lengths():
    student, teacher = feature(2, 4, 4, 4).requires_grad_(), feature(2, 6, 4, 4, seed=1)
    loss = PairwiseAffinityLoss(pool=None, detach_norm=False)(student, teacher)
    torch.testing.assert_close(loss, PairwiseAffinityLoss(pool=None)(student, teacher))
    true = torch.autograd.grad(loss, student)[0]
    torch.testing.assert_close((true * student).sum(dim=1), torch.zeros(2, 4, 4), rtol=0, atol=1e-6)
    released = torch.autograd.grad(PairwiseAffinityLoss(pool=None)(student, teacher), student)[0]
    assert float((released * student.detach()).sum(dim=1).abs().max()) > 1e-3
    # the true one is the part of the released one that leaves the lengths as they are
    along = (released * student).sum(dim=1, keepdim=True) / student.square().sum(dim=1, keepdim=True)
    torch.testing.assert_close(released - along * student, true)


@few
@given(
    channels=st.tuples(st.integers(2, 5), st.integers(2, 5)),
    spatial=st.lists(st.integers(1, 2), min_size=2, max_size=3),
    pool_mode=st.sampled_from(["max", "average"]),
    seed=st.integers(0, 99),
)
def test_equals_numpy_loop(channels, spatial, pool_mode, seed):
    student = feature(2, channels[0], *(2 * n for n in spatial), seed=seed)
    teacher = feature(2, channels[1], *(4 * n for n in spatial), seed=seed + 1)
    over = np.max if pool_mode == "max" else np.mean
    expected = []
    for s, t in zip(student.numpy(), teacher.numpy(), strict=True):
        node_s = block_reduce(s, (1, *(2 * n for n in spatial)), over)
        node_t = block_reduce(t, (1, *(4 * n for n in spatial)), over)
        halves_s = block_reduce(s, (1, *spatial), over)
        halves_t = block_reduce(t, (1, *(2 * n for n in spatial)), over)
        expected.append(
            [np.mean((affinities(a) - affinities(b)) ** 2) for a, b in [(node_s, node_t), (halves_s, halves_t)]]
        )
    one, two = np.mean(expected, axis=0)
    for pool, value in [(1, one), (2, two)]:
        loss = PairwiseAffinityLoss(pool, pool_mode)(student, teacher)
        assert loss.item() == pytest.approx(value, rel=1e-4, abs=1e-6)


def test_opposite_features_by_hand():
    # two nodes: alike in the student (cosine 1), opposite in the teacher (-1); the diagonal is 1 in both
    student = torch.tensor([[[[1.0, 3.0]]]])
    teacher = torch.tensor([[[[2.0, -1.0]], [[0.0, 0.0]]]])
    assert PairwiseAffinityLoss()(student, teacher).item() == pytest.approx(2 * 2**2 / 2**2)


@pytest.mark.parametrize("spatial", [(4, 6), (4, 2, 6)])
def test_order_of_nodes_and_turned_channels_do_not_matter(spatial):
    student, teacher = feature(2, 4, *spatial), feature(2, 4, *spatial, seed=1)
    loss = PairwiseAffinityLoss(pool=None)
    expected = loss(student, teacher)
    order = torch.randperm(student[0, 0].numel(), generator=torch.Generator().manual_seed(0))
    shuffled = (x.flatten(2)[:, :, order].reshape(x.shape) for x in (student, teacher))
    torch.testing.assert_close(loss(*shuffled), expected)
    turn = torch.linalg.qr(feature(4, 4, seed=2))[0]
    torch.testing.assert_close(loss(torch.einsum("dc,bc...->bd...", turn, student), teacher), expected)


@pytest.mark.parametrize("factor", [1e-4, 1e4])
def test_scale_of_a_feature_does_not_matter(factor):
    student, teacher = feature(2, 4, 6, 6), feature(2, 6, 6, 6, seed=1)
    expected = PairwiseAffinityLoss()(student, teacher)
    torch.testing.assert_close(PairwiseAffinityLoss()(factor * student, teacher), expected)
    torch.testing.assert_close(PairwiseAffinityLoss()(student, factor * teacher), expected)


@pytest.mark.parametrize(("pool", "grid"), [(4, (3, 4)), (7, (3, 5)), (None, (3, 5))])
@pytest.mark.parametrize("turned", [False, True])
def test_grid_is_that_of_the_smaller_map(pool, grid, turned):
    """On each axis the student's or the teacher's, whichever has fewer pixels."""
    student, teacher = feature(2, 4, 3, 8), feature(2, 6, 6, 5, seed=1)
    maps = (teacher, student) if turned else (student, teacher)
    pooled = [torch.nn.functional.adaptive_avg_pool2d(x, grid) for x in maps]
    loss = PairwiseAffinityLoss(pool=pool, pool_mode="average")(*maps)
    assert torch.equal(loss, PairwiseAffinityLoss(pool=None)(*pooled))


def test_pixel_without_activation_gets_no_gradient():
    student, teacher = feature(1, 4, 4, 4), feature(1, 6, 4, 4, seed=1)
    student[:, :, 1, 2] = 0
    student.requires_grad_()
    for detach_norm in (True, False):
        grad = torch.autograd.grad(PairwiseAffinityLoss(None, detach_norm=detach_norm)(student, teacher), student)[0]
        assert torch.isfinite(grad).all()
        assert float(grad[:, :, 1, 2].norm()) == 0
        assert float(grad[:, :, 0, 0].norm()) > 0


@pytest.mark.parametrize(
    ("shape", "most"),
    [((1, 1, 129, 128), 128), ((16, 1, 65, 64), 64), ((1, 1, 32, 32, 32), 25), ((8, 1, 24, 24, 24), 17)],
)
def test_too_many_nodes_are_refused_before_they_are_compared(shape, most):
    student = torch.zeros(shape)
    with pytest.raises(ValueError, match=rf"must have at most \d+ nodes .*; pass a `pool` of at most {most}\.$"):
        PairwiseAffinityLoss(pool=None)(student, student)
    limit = 2**28
    assert shape[0] * most ** (2 * (len(shape) - 2)) <= limit < shape[0] * (most + 1) ** (2 * (len(shape) - 2))
    assert PairwiseAffinityLoss(pool=4)(student, student).item() == 0


@pytest.mark.parametrize("pool", [0, -1, 2.0, True, "2"])
def test_wrong_pool_is_refused(pool):
    with pytest.raises(ValueError, match=f"`pool` must be None or a whole number of cells above 0, but got {pool!r}"):
        PairwiseAffinityLoss(pool=pool)


def test_wrong_mode_is_refused():
    with pytest.raises(ValueError, match="`pool_mode` must be one of 'max', 'average', but got 'min'"):
        PairwiseAffinityLoss(pool_mode="min")
