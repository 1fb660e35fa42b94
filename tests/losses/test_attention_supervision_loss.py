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
from scipy.special import rel_entr, softmax
from skimage.measure import block_reduce
from torch.nn import functional as F

from monai_kd.losses import AttentionSupervisionLoss

few = settings(max_examples=15, deadline=None)


def logits(*shape, seed=0, dtype=torch.float32):
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def attention(z, tokens="rows"):
    """softmax(z z^T / sqrt(d)) z of one map, in its shape."""
    token = np.asarray(z, dtype=float).reshape(-1, 1 if tokens == "pixels" else z.shape[-1])
    return (softmax(token @ token.T / np.sqrt(token.shape[1]), axis=1) @ token).reshape(z.shape)


def divergence(student, teacher, temperature, tokens="rows", norm="flat"):
    """The loss by a loop over images and channels."""
    values = []
    for at in np.ndindex(*student.shape[:2]):
        s, t = (attention(z[at].numpy(), tokens).reshape(-1, z.shape[-1]) / temperature for z in (student, teacher))
        s, t = (s, t) if norm == "row" else (s.reshape(1, -1), t.reshape(1, -1))
        values.append(rel_entr(softmax(t, axis=1), softmax(s, axis=1)).sum(axis=1).mean())
    return temperature**2 * np.mean(values)


def released_term(student, teacher, temperature=2.0):
    """What the released training loop of KDAS computes for one scale."""
    target = F.scaled_dot_product_attention(teacher, teacher, teacher) / temperature
    guess = torch.softmax(student, dim=1) / temperature  # one channel: a constant
    return F.kl_div(guess, target, reduction="none").mean()


# kdas_paper_L_AT_flat: Eq. 1 to 3 written down by others, not the authors' code. Eq. 3 is the sum over two scales.
def test_equals_the_equations(parity_case):
    case = parity_case("kdas_paper_L_AT_flat")
    loss = sum(
        AttentionSupervisionLoss()(student.requires_grad_(), teacher)
        for student, teacher in ((case.P1, case.P1_tea), (case.P2, case.P2_tea))
    )
    loss.backward()
    assert loss.item() == pytest.approx(case.loss, rel=1e-5)
    for name in ("P1", "P2"):
        gradient = getattr(case, name).grad
        assert gradient.norm().item() == pytest.approx(case.grad_norms[name], rel=1e-4)
        torch.testing.assert_close(gradient, getattr(case, f"grad_{name}"), rtol=1e-4, atol=1e-6)


@few
@given(
    channels=st.integers(1, 3),
    spatial=st.lists(st.integers(1, 5), min_size=2, max_size=3),
    temperature=st.floats(0.5, 8),
    tokens=st.sampled_from(["rows", "pixels"]),
    norm=st.sampled_from(["flat", "row"]),
)
def test_equals_numpy_loop(channels, spatial, temperature, tokens, norm):
    student, teacher = logits(2, channels, *spatial), logits(2, channels, *spatial, seed=1)
    loss = AttentionSupervisionLoss(temperature, tokens, norm)(student, teacher)
    assert loss.item() == pytest.approx(divergence(student, teacher, temperature, tokens, norm), rel=1e-4, abs=1e-6)


# kdas_inline_block_kd_P1: the released loop on logits of both signs. NaN and no gradient are its defects.
def test_released_term_is_reproduced_with_its_defects(parity_case):
    case = parity_case("kdas_inline_block_kd_P1")
    released = released_term(case.P1.requires_grad_(), case.P1_tea)
    released.backward()
    assert torch.isnan(released)
    assert case.P1.grad.norm().item() == case.grad_norms["P1"] == 0
    attended = attention(case.P1_tea[:, 0].numpy()[0]), attention(case.P1_tea[:, 0].numpy()[1])
    assert min(a.min() for a in attended) / 2 == pytest.approx(case.extra["teacher_att_min"], rel=1e-5)
    ours = AttentionSupervisionLoss()(case.P1, case.P1_tea)
    assert torch.isfinite(torch.autograd.grad(ours, case.P1)[0]).all()
    assert torch.isfinite(ours)


def test_released_term_teaches_nothing_and_ours_does():
    student, teacher = logits(2, 1, 8, 8).requires_grad_(), logits(2, 1, 8, 8, seed=1).abs()  # no negative target
    released = released_term(student, teacher)
    assert torch.isfinite(released)
    assert (torch.autograd.grad(released, student)[0] == 0).all()
    assert torch.equal(released_term(logits(2, 1, 8, 8, seed=2), teacher), released)  # whatever the student says
    ours = AttentionSupervisionLoss()(student, teacher)
    assert (torch.autograd.grad(ours, student)[0] != 0).all()
    assert AttentionSupervisionLoss()(logits(2, 1, 8, 8, seed=2), teacher) != ours


@pytest.mark.parametrize("norm", ["flat", "row"])
def test_descent_brings_the_attention_to_the_teacher(norm):
    student, teacher = logits(2, 1, 6, 8).requires_grad_(), logits(2, 1, 6, 8, seed=1)
    loss, optimizer = AttentionSupervisionLoss(norm=norm), torch.optim.Adam([student], 0.05)
    first = loss(student, teacher).item()
    for _ in range(300):
        optimizer.zero_grad()
        loss(student, teacher).backward()
        optimizer.step()
    assert loss(student, teacher).item() < 0.01 * first
    axis = None if norm == "flat" else 1
    s, t = (softmax(attention(z[0, 0].detach().numpy()) / 2, axis=axis) for z in (student, teacher))
    assert (np.abs(s - t).sum(axis=axis) < 0.1).all()


@few
@given(seed=st.integers(0, 99), tokens=st.sampled_from(["rows", "pixels"]))
def test_order_of_rows_and_columns_does_not_matter(seed, tokens):
    student, teacher = logits(2, 1, 5, 4, seed=seed), logits(2, 1, 5, 4, seed=seed + 100)
    draw = torch.Generator().manual_seed(seed)
    rows, columns = torch.randperm(5, generator=draw), torch.randperm(4, generator=draw)
    loss = AttentionSupervisionLoss(tokens=tokens)
    reordered = loss(student[:, :, rows][..., columns], teacher[:, :, rows][..., columns])
    torch.testing.assert_close(reordered, loss(student, teacher))


def test_high_temperature_is_half_the_variance_of_the_difference():
    student, teacher = logits(1, 1, 6, 8, dtype=torch.float64), logits(1, 1, 6, 8, seed=1, dtype=torch.float64)
    limit = np.var(attention(student[0, 0].numpy()) - attention(teacher[0, 0].numpy())) / 2
    assert AttentionSupervisionLoss(temperature=1e3)(student, teacher).item() == pytest.approx(limit, rel=0.02)
    assert AttentionSupervisionLoss(temperature=1e4)(student, teacher).item() == pytest.approx(limit, rel=0.002)


def test_temperature_follows_a_schedule():
    student, teacher = logits(2, 1, 4, 4), logits(2, 1, 4, 4, seed=1)
    loss = AttentionSupervisionLoss(temperature=4)
    loss.temperature = 2
    assert torch.equal(loss(student, teacher), AttentionSupervisionLoss()(student, teacher))


def test_batch_is_the_mean_of_its_images():
    student, teacher = logits(3, 1, 6, 8), logits(3, 1, 6, 8, seed=1)
    loss = AttentionSupervisionLoss()
    alone = [loss(student[i : i + 1], teacher[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(loss(student, teacher), torch.stack(alone).mean())


@pytest.mark.parametrize("tokens", ["rows", "pixels"])
def test_pool_averages_both_maps_first(tokens):
    student, teacher = logits(2, 1, 12, 8), logits(2, 1, 12, 8, seed=1)
    blocks = [torch.from_numpy(block_reduce(z.numpy(), (1, 1, 3, 2), np.mean)) for z in (student, teacher)]
    loss = AttentionSupervisionLoss(tokens=tokens, pool=4)(student, teacher)
    torch.testing.assert_close(loss, AttentionSupervisionLoss(tokens=tokens)(*blocks))


def test_pool_does_not_enlarge():
    student, teacher = logits(2, 1, 3, 5), logits(2, 1, 3, 5, seed=1)
    assert torch.equal(AttentionSupervisionLoss(pool=5)(student, teacher), AttentionSupervisionLoss()(student, teacher))


def test_pixel_tokens_of_a_large_image_want_a_pool():
    image = logits(1, 1, 352, 352)
    message = r"at most 16384 pixels, but got 123904 of .*\(352, 352\): .* of 57.2 GiB .* `pool` of at most 128"
    with pytest.raises(ValueError, match=message):
        AttentionSupervisionLoss(tokens="pixels")(image, image)
    assert AttentionSupervisionLoss(tokens="pixels", pool=16)(image, image) == 0


def test_rows_of_a_large_volume_want_a_pool():
    volume = logits(1, 1, 130, 130, 2)
    message = r"at most 16384 rows, but got 16900 of .*: an attention matrix of 1.1 GiB .* `pool` of at most 128"
    with pytest.raises(ValueError, match=message):
        AttentionSupervisionLoss()(volume, volume)
    with pytest.raises(ValueError, match="at most 16384 pixels, but got 33800 .* `pool` of at most 25"):
        AttentionSupervisionLoss(tokens="pixels")(volume, volume)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": "2"}, "`temperature` must be a finite number above 0, but got '2'"),
        ({"pool": 8.0}, "`pool` must be a whole number of pixels above 0, but got 8.0"),
        ({"pool": "8"}, "`pool` must be a whole number of pixels above 0, but got '8'"),
        ({"temperature": 0}, "`temperature` must be a finite number above 0, but got 0"),
        ({"temperature": float("nan")}, "`temperature` must be a finite number above 0, but got nan"),
        ({"tokens": "columns"}, "`tokens` must be one of 'rows', 'pixels', but got 'columns'"),
        ({"norm": "column"}, "`norm` must be one of 'flat', 'row', but got 'column'"),
        ({"pool": 0}, "`pool` must be a whole number of pixels above 0, but got 0"),
        ({"pool": 1.5}, "`pool` must be a whole number of pixels above 0, but got 1.5"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        AttentionSupervisionLoss(**arguments)


@pytest.mark.parametrize(
    ("student", "teacher"), list(itertools.permutations([(2, 1, 8, 8), (2, 1, 4, 4), (2, 3, 8, 8)], 2))
)
def test_other_shapes_are_refused(student, teacher):
    with pytest.raises(ValueError, match=r"`student` must have the shape of `teacher`, but got .* adapter"):
        AttentionSupervisionLoss()(torch.zeros(student), torch.zeros(teacher))


def test_list_of_outputs_is_refused():
    with pytest.raises(TypeError, match="`student` must be a tensor, but got list; pass one output at a time"):
        AttentionSupervisionLoss()([torch.zeros(1, 1, 4, 4)], torch.zeros(1, 1, 4, 4))
