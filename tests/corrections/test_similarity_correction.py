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
from monai.bundle import ConfigParser
from monai.data import MetaTensor

from monai_kd.corrections import SimilarityCorrection
from monai_kd.corrections._most_similar import most_similar
from tests.corrections.correction_case import Case, cases, check_invariants, make_case, predicted

few = settings(max_examples=60, deadline=None)


def cosines(pixels, candidates):
    """The whole matrix in double precision, zero where a vector is."""
    pixels, candidates = (x.double().numpy() for x in (pixels, candidates))
    norms = np.linalg.norm(pixels, axis=1)[:, None] * np.linalg.norm(candidates, axis=1)
    return np.divide(pixels @ candidates.T, norms, out=np.zeros_like(norms), where=norms > 0)


def lost_similarity(pixels, candidates, index):
    """How far the found candidates are from the best, in cosine."""
    similarity = cosines(pixels, candidates)
    return similarity.max(1) - similarity[np.arange(len(pixels)), index.numpy()]


@few
@given(
    seed=st.integers(0, 10**6),
    sizes=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    channels=st.integers(2, 5),
    pairs=st.integers(1, 100),
    shift=st.sampled_from([0.0, -0.5, 3.0]),
)
def test_search_in_blocks_finds_what_the_whole_matrix_has(seed, sizes, channels, pairs, shift):
    generator = torch.Generator().manual_seed(seed)
    pixels, candidates = (torch.rand(size, channels, generator=generator) + shift for size in sizes)
    index = most_similar(pixels, candidates, pairs * 4 / 2**20)
    assert lost_similarity(pixels, candidates, index).max() < 1e-6


@few
@given(seed=st.integers(0, 10**6), pairs=st.integers(1, 100))
def test_one_channel_finds_the_nearest_value(seed, pairs):
    generator = torch.Generator().manual_seed(seed)
    pixels, candidates = (1000 * torch.rand(size, 1, generator=generator) - 500 for size in (13, 17))
    distance = (pixels - candidates.T).abs()
    found = distance[torch.arange(13), most_similar(pixels, candidates, pairs * 4 / 2**20)]
    torch.testing.assert_close(found, distance.min(1).values, atol=1e-3, rtol=0)


def test_colours_almost_alike_are_told_apart():
    """Of one hue and a hundredth of a grey level of 8 bits apart: plain cosines in single precision are all 1."""
    candidates = torch.tensor([0.8, 0.4, 0.3]) + torch.arange(-20.0, 21.0)[:, None] * torch.tensor([4e-5, 0.0, -4e-5])
    index = most_similar(candidates, candidates, 1)
    assert torch.equal(index, torch.arange(41))


def test_black_finds_black_and_colours_find_colours():
    colour = torch.tensor([[0.2, 0.4, 0.1]])
    black, candidates = torch.zeros(1, 3), torch.tensor([[0.9, 0.1, 0.1], [0.0, 0.0, 0.0], [0.1, 0.9, 0.2]])
    assert most_similar(torch.cat([black, colour]), candidates, 1).tolist() == [1, 2]
    assert most_similar(black, candidates[::2], 1).item() in (0, 1)


@pytest.mark.parametrize(("cosine", "expected"), [(0.3, 1), (0.01, 1), (-0.01, 0), (-0.9, 0)])
def test_black_candidate_has_cosine_0(cosine, expected):
    candidates = torch.tensor([[0.0, 0.0], [cosine, (1 - cosine**2) ** 0.5]])
    assert most_similar(torch.tensor([[1.0, 0.0]]), candidates, 16).item() == expected


@pytest.mark.parametrize("spatial", [(6, 7), (3, 4, 5)])
@pytest.mark.parametrize("outputs", [1, 2, 4])
def test_equals_a_loop_over_the_pixels(outputs, spatial):
    case = make_case(outputs=outputs, spatial=spatial)
    corrected = SimilarityCorrection()(*case)
    wrong = predicted(case.soft_label) != case.label
    assert wrong.any()
    for sample, *pixel in wrong[:, 0].nonzero().tolist():
        mask = ~wrong[sample, 0] & (case.label[sample, 0] == case.label[(sample, 0, *pixel)])
        colours, soft_labels = case.image[sample][:, mask].T, case.soft_label[sample][:, mask].T
        best = cosines(case.image[(sample, slice(None), *pixel)][None], colours).argmax()
        assert torch.equal(corrected[(sample, slice(None), *pixel)], soft_labels[best])


@few
@given(
    case=cases,
    memory_mb=st.sampled_from([1e-9, 1e-4, 16.0]),
    max_candidates=st.sampled_from([None, 1, 3]),
)
def test_all_correct_and_invariants(case, memory_mb, max_candidates):
    assert check_invariants(case, SimilarityCorrection(memory_mb, max_candidates)(*case)) == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize(("outputs", "number"), [(1, 0), (1, 1), (2, 0), (2, 1), (5, 0), (5, 3)])
def test_class_without_a_right_pixel_keeps_the_confidence(dtype, outputs, number):
    """Each image one pixel, so that there is none to copy from; equal probabilities too."""
    logits = torch.randn(200, max(2, outputs), 1, 1)
    logits[:20] = 0
    soft_label = logits.softmax(1).to(dtype)[:, -outputs:]
    case = Case(soft_label, torch.rand(200, 3, 1, 1), torch.full((200, 1, 1, 1), number))
    corrected = SimilarityCorrection()(*case)
    assert check_invariants(case, corrected) == 0
    two = [torch.cat([1 - x, x], 1) if outputs == 1 else x for x in (soft_label.double(), corrected.double())]
    wrong = (predicted(soft_label) != number).flatten()
    torch.testing.assert_close(two[1].amax(1)[wrong], two[0].amax(1)[wrong], atol=0.02, rtol=0)
    torch.testing.assert_close(two[1].sort(1).values, two[0].sort(1).values, atol=0.02, rtol=0)


def test_order_of_classes_does_not_matter():
    case = make_case(outputs=3)
    expected = SimilarityCorrection()(*case)
    for order in itertools.permutations(range(3)):
        place = torch.tensor(order).argsort()  # where each class goes
        moved = SimilarityCorrection()(case.soft_label[:, order], case.image, place[case.label])
        assert torch.equal(moved, expected[:, order])


def test_images_of_a_batch_do_not_see_each_other():
    case = make_case(outputs=3)
    one_by_one = [SimilarityCorrection()(*(tensor[i : i + 1] for tensor in case)) for i in range(2)]
    assert torch.equal(SimilarityCorrection()(*case), torch.cat(one_by_one))


def test_brightness_of_the_image_does_not_matter():
    case = make_case()
    darker = SimilarityCorrection()(case.soft_label, 0.25 * case.image, case.label)
    assert torch.equal(darker, SimilarityCorrection()(*case))


def test_depth_one_equals_2d():
    case = make_case(outputs=3)
    volume = SimilarityCorrection()(*(tensor.unsqueeze(2) for tensor in case))
    assert torch.equal(volume.squeeze(2), SimilarityCorrection()(*case))


def test_memory_stays_within_the_budget():
    """The peak of what torch allocates, from its own profiler: naive, the matrix alone would be 64 MiB."""
    generator = torch.Generator().manual_seed(0)
    pixels, candidates = (torch.rand(4096, 3, generator=generator) for _ in range(2))
    with torch.profiler.profile(profile_memory=True, activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        most_similar(pixels, candidates, 0.5)
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    linear = 8 * 4096 * (3 + 1) * 4  # vectors, norms, offsets, indices: some copies of the pixels
    assert 0.5 * 2**20 <= peak <= 0.5 * 2**20 + linear


def test_search_draws_nothing_and_repeats():
    case = make_case(outputs=3, spatial=(12, 12))
    state = torch.get_rng_state()
    correction = SimilarityCorrection(max_candidates=4)
    first, second = correction(*case), correction(*case)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first, second)
    other = SimilarityCorrection(max_candidates=4, seed=1)(*case)
    assert not torch.equal(first, other)


def test_more_candidates_lose_less_and_all_lose_nothing():
    """On a smooth image with noise; the lost cosine falls about with the number of candidates."""
    generator = torch.Generator().manual_seed(0)
    ramp = torch.linspace(0.2, 0.9, 64)
    image = torch.stack([ramp.expand(64, 64), ramp.expand(64, 64).T, 1 - ramp.expand(64, 64)])[None]
    image = image + 0.02 * torch.randn(image.shape, generator=generator)
    label = torch.zeros(1, 1, 64, 64)
    foreground = torch.rand(1, 1, 64, 64, generator=generator) * 0.5
    wrong = torch.rand(1, 1, 64, 64, generator=generator) < 0.05
    pixels = image[0][:, wrong[0, 0]].T
    soft_label = torch.where(wrong, 1 - foreground, foreground)

    def lost(max_candidates):
        # the vector of the pixel that was copied takes the place of the probability
        correction = SimilarityCorrection(max_candidates=max_candidates)
        right = (~wrong).flatten().nonzero()[:, 0]
        drawn = correction._drawn(right)
        vectors = image.flatten(2)[0].T
        found = drawn[most_similar(pixels, vectors[drawn], 16)]
        copied = correction(soft_label, image, label)
        assert torch.equal(copied.flatten()[wrong.flatten()], soft_label.flatten()[found])
        best = cosines(pixels, vectors[right]).max(1)
        return float((best - np.diag(cosines(pixels, vectors[found]))).mean())

    losses = [lost(number) for number in (16, 128, 1024, None)]
    assert losses[0] > losses[1] > losses[2] > losses[3]
    assert losses[1] < 2e-3
    assert losses[2] < 2e-4
    assert losses[3] < 1e-7
    assert lost(64 * 64) == losses[3]


def test_infinite_image_breaks_nothing():
    case = make_case(spatial=(9, 9))
    image = case.image.clone()
    image[:, 0, :4], image[:, 1, 4:6] = torch.nan, torch.inf
    assert check_invariants(case, SimilarityCorrection()(case.soft_label, image, case.label)) == 0


def test_integer_image_equals_float_image():
    case = make_case()
    image = (255 * case.image).round()
    expected = SimilarityCorrection()(case.soft_label, image, case.label)
    assert torch.equal(SimilarityCorrection()(case.soft_label, image.byte(), case.label), expected)


def test_inputs_are_not_written_and_metadata_do_not_matter():
    case = make_case(kind="wrong")
    before = [tensor.clone() for tensor in case]
    corrected = SimilarityCorrection()(*map(MetaTensor, case))
    assert all(torch.equal(now, then) for now, then in zip(case, before))
    assert not isinstance(corrected, MetaTensor)
    assert torch.equal(corrected, SimilarityCorrection()(*case))


def test_channels_last_gives_the_same():
    case = make_case(outputs=3)
    strided = [tensor.to(memory_format=torch.channels_last) for tensor in case]
    assert torch.equal(SimilarityCorrection()(*strided), SimilarityCorrection()(*case))


def test_autocast_does_not_coarsen_the_search():
    case = make_case(outputs=3, spatial=(16, 16))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        corrected = SimilarityCorrection()(*case)
    assert torch.equal(corrected, SimilarityCorrection()(*case))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_gpu_finds_as_good_a_pixel():
    generator = torch.Generator().manual_seed(0)
    pixels, candidates = (torch.rand(500, 3, generator=generator) for _ in range(2))
    index = most_similar(pixels.cuda(), candidates.cuda(), 0.1).cpu()
    assert lost_similarity(pixels, candidates, index).max() < 1e-6
    case = make_case(outputs=3)
    assert check_invariants(case, SimilarityCorrection()(*(tensor.cuda() for tensor in case)).cpu()) == 0


def test_bundle_config():
    config = {"_target_": "monai_kd.corrections.SimilarityCorrection", "memory_mb": 4}
    case = make_case()
    assert check_invariants(case, ConfigParser({"c": config}).get_parsed_content("c")(*case)) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"memory_mb": 0}, "`memory_mb` must be above 0, but got 0"),
        ({"memory_mb": float("nan")}, "`memory_mb` must be above 0, but got nan"),
        ({"max_candidates": 0}, "`max_candidates` must be at least 1 or None for all, but got 0"),
    ],
)
def test_guards(arguments, message):
    with pytest.raises(ValueError, match=message):
        SimilarityCorrection(**arguments)


def test_image_of_other_size_is_refused():
    case = make_case()
    with pytest.raises(ValueError, match=r"`image` must have the batch and spatial size of `soft_label`, but got"):
        SimilarityCorrection()(case.soft_label, case.image[..., :3], case.label)
