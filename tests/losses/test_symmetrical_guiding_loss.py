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
from scipy.special import expit, rel_entr, softmax
from skimage.measure import block_reduce

from monai_kd.losses import SymmetricalGuidingLoss

few = settings(max_examples=15, deadline=None)
SIGMAS = ("sigmoid_bernoulli", "sigmoid_softmax", "softmax")


def logits(*shape, seed=0, dtype=torch.float32):
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def symmetric(z, tokens="rows"):
    """A + A^T of one map, of each slice of it in a volume."""
    token = z.numpy().astype(float).reshape(-1, 1 if tokens == "pixels" else z.shape[-1])
    attended = (softmax(token @ token.T / np.sqrt(token.shape[1]), axis=1) @ token).reshape(z.shape)
    return attended + attended.swapaxes(-1, -2)


def divergence(student, teacher, temperature=2.0, sigma="sigmoid_bernoulli", direction="forward", tokens="rows"):
    """The loss by a loop over images and channels."""
    values = []
    for at in np.ndindex(*student.shape[:2]):
        s, t = symmetric(student[at], tokens), symmetric(teacher[at], tokens)
        if sigma == "sigmoid_bernoulli":
            q, p = (np.stack([expit(x / temperature), expit(-x / temperature)]).reshape(2, -1) for x in (s, t))
        else:
            s, t = (expit(s), expit(t)) if sigma == "sigmoid_softmax" else (s, t)
            q, p = (
                softmax(s / temperature, axis=None).reshape(-1, 1),
                softmax(t / temperature, axis=None).reshape(-1, 1),
            )
        values.append((rel_entr(p, q) if direction == "forward" else rel_entr(q, p)).sum(axis=0).mean())
    return temperature**2 * np.mean(values)


# kdas_paper_L_SGM_softmax: Eq. 4 to 6 written down by others, not the authors' code, with a softmax for sigma.
def test_softmax_equals_the_equations(parity_case):
    case = parity_case("kdas_paper_L_SGM_softmax")
    loss = SymmetricalGuidingLoss(sigma="softmax")(case.P2.requires_grad_(), case.P2_tea)
    loss.backward()
    assert loss.item() == pytest.approx(case.loss, rel=1e-5)
    assert case.P2.grad.norm().item() == pytest.approx(case.grad_norms["P2"], rel=1e-4)
    torch.testing.assert_close(case.P2.grad, case.grad_P2, rtol=1e-4, atol=1e-6)


# kdas_inline_block_kd_P1: the released loop, whose symmetric term has neither attention nor sigma nor temperature.
def test_released_symmetric_term_is_another(parity_case):
    case = parity_case("kdas_inline_block_kd_P1")
    released = (case.P1 + case.P1.mT - case.P1_tea - case.P1_tea.mT).square().mean()
    assert released.item() == pytest.approx(case.extra["cos_loss"], rel=1e-5)
    assert SymmetricalGuidingLoss()(case.P1, case.P1_tea).item() < released.item() / 5


@few
@given(
    channels=st.integers(1, 3),
    depth=st.lists(st.integers(1, 3), max_size=1),
    side=st.integers(1, 5),
    temperature=st.floats(0.5, 8),
    sigma=st.sampled_from(SIGMAS),
    direction=st.sampled_from(["forward", "reverse"]),
    tokens=st.sampled_from(["rows", "pixels"]),
)
def test_equals_numpy_loop(channels, depth, side, temperature, sigma, direction, tokens):
    student, teacher = (logits(2, channels, *depth, side, side, seed=seed) for seed in (0, 1))
    loss = SymmetricalGuidingLoss(temperature, sigma, direction, tokens)(student, teacher)
    expected = divergence(student, teacher, temperature, sigma, direction, tokens)
    assert loss.item() == pytest.approx(expected, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("sigma", SIGMAS)
def test_descent_brings_the_symmetric_map_to_the_teacher(sigma):
    student, teacher = logits(2, 1, 6, 6).requires_grad_(), logits(2, 1, 6, 6, seed=1)
    loss, optimizer = SymmetricalGuidingLoss(sigma=sigma), torch.optim.Adam([student], 0.05)
    first = loss(student, teacher).item()
    for _ in range(300):
        optimizer.zero_grad()
        loss(student, teacher).backward()
        optimizer.step()
    assert loss(student, teacher).item() < 0.02 * first


@few
@given(seed=st.integers(0, 99), sigma=st.sampled_from(SIGMAS))
def test_rows_and_columns_reordered_alike_same_loss(seed, sigma):
    student, teacher = logits(2, 1, 5, 5, seed=seed), logits(2, 1, 5, 5, seed=seed + 100)
    order = torch.randperm(5, generator=torch.Generator().manual_seed(seed))
    loss = SymmetricalGuidingLoss(sigma=sigma)
    reordered = loss(student[:, :, order][..., order], teacher[:, :, order][..., order])
    torch.testing.assert_close(reordered, loss(student, teacher))


@few
@given(seed=st.integers(0, 99))
def test_foreground_and_background_exchanged_same_loss(seed):
    student, teacher = logits(2, 1, 5, 5, seed=seed), logits(2, 1, 5, 5, seed=seed + 100)
    loss = SymmetricalGuidingLoss()
    torch.testing.assert_close(loss(-student, -teacher), loss(student, teacher))


@pytest.mark.parametrize("sigma", SIGMAS)
def test_transposed_images_same_loss_with_pixel_tokens(sigma):
    student, teacher = logits(2, 1, 5, 5), logits(2, 1, 5, 5, seed=1)
    loss = SymmetricalGuidingLoss(sigma=sigma, tokens="pixels")
    torch.testing.assert_close(loss(student.mT, teacher.mT), loss(student, teacher))


def test_high_temperature_is_an_eighth_of_the_mean_square():
    student, teacher = logits(1, 1, 6, 6, dtype=torch.float64), logits(1, 1, 6, 6, seed=1, dtype=torch.float64)
    limit = np.mean((symmetric(student[0, 0]) - symmetric(teacher[0, 0])) ** 2) / 8
    assert SymmetricalGuidingLoss(temperature=1e3)(student, teacher).item() == pytest.approx(limit, rel=1e-3)


def test_confident_networks_give_the_log_odds():
    student = torch.full((1, 1, 4, 4), 500.0)  # attended alike, and added to the transpose: 1000 in each pixel
    loss = SymmetricalGuidingLoss(temperature=1)
    assert loss(student, -student).item() == pytest.approx(1000)


def test_temperature_follows_a_schedule():
    student, teacher = logits(2, 1, 4, 4), logits(2, 1, 4, 4, seed=1)
    loss = SymmetricalGuidingLoss(temperature=4)
    loss.temperature = 2
    assert torch.equal(loss(student, teacher), SymmetricalGuidingLoss()(student, teacher))


def test_batch_is_the_mean_of_its_images():
    student, teacher = logits(3, 1, 6, 6), logits(3, 1, 6, 6, seed=1)
    loss = SymmetricalGuidingLoss()
    alone = [loss(student[i : i + 1], teacher[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(loss(student, teacher), torch.stack(alone).mean())


@pytest.mark.parametrize("spatial", [(4, 6), (3, 4, 6)])
def test_image_that_is_no_square_is_refused(spatial):
    image = logits(1, 1, *spatial)
    message = (
        "`student` must be square .*, but got a height of 4 and a width of 6; crop, .* or pass a `pool` of at most 4"
    )
    with pytest.raises(ValueError, match=message):
        SymmetricalGuidingLoss()(image, image)


def test_pool_makes_a_square():
    student, teacher = logits(2, 1, 6, 9), logits(2, 1, 6, 9, seed=1)
    blocks = [torch.from_numpy(block_reduce(z.numpy(), (1, 1, 2, 3), np.mean)) for z in (student, teacher)]
    torch.testing.assert_close(SymmetricalGuidingLoss(pool=3)(student, teacher), SymmetricalGuidingLoss()(*blocks))


def test_pixel_tokens_of_a_large_image_want_a_pool():
    image = logits(1, 1, 352, 352)
    with pytest.raises(ValueError, match="at most 16384 pixels, but got 123904 .* 57.2 GiB .* `pool` of at most 128"):
        SymmetricalGuidingLoss(tokens="pixels")(image, image)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"temperature": -1}, "`temperature` must be a finite number above 0, but got -1"),
        ({"sigma": "sigmoid"}, "`sigma` must be one of 'sigmoid_bernoulli', 'sigmoid_softmax', 'softmax', but got"),
        ({"direction": "backward"}, "`direction` must be one of 'forward', 'reverse', but got 'backward'"),
        ({"tokens": "columns"}, "`tokens` must be one of 'rows', 'pixels', but got 'columns'"),
        ({"pool": -3}, "`pool` must be a whole number of pixels above 0, but got -3"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        SymmetricalGuidingLoss(**arguments)


def test_other_shapes_are_refused():
    with pytest.raises(ValueError, match=r"`student` must have the shape of `teacher`, but got .* and \(2, 3, 8, 8\)"):
        SymmetricalGuidingLoss()(torch.zeros(2, 1, 8, 8), torch.zeros(2, 3, 8, 8))
