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

import copy

import pytest
import torch
from hypothesis import given, settings
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from torch import nn

from monai_kd.corrections import AssistantCorrection, SimilarityCorrection
from monai_kd.networks import Teacher, TeacherTeam
from tests.corrections.correction_case import cases, check_invariants, make_case, predicted

few = settings(max_examples=40, deadline=None)


def pointwise(case):
    """A network that sees the pixel alone, in 2D and 3D."""
    convolution = nn.Conv2d if case.image.ndim == 4 else nn.Conv3d
    return convolution(case.image.shape[1], case.soft_label.shape[1], 1)


class Noisy(nn.Module):
    """Draws in each forward pass, in whatever mode."""

    def __init__(self):
        super().__init__()
        self.head = nn.Conv2d(3, 2, 1)

    def forward(self, image):
        return nn.functional.dropout(self.head(image), 0.5, training=True)


@pytest.mark.parametrize("spatial", [(6, 7), (3, 4, 5)])
@pytest.mark.parametrize("outputs", [1, 2, 4])
def test_equals_a_loop_over_the_pixels(outputs, spatial):
    case = make_case(outputs=outputs, spatial=spatial)
    network = pointwise(case)
    corrected = AssistantCorrection(network)(*case)
    weight = network.weight.detach().reshape(outputs, -1)
    wrong = predicted(case.soft_label) != case.label
    for pixel in wrong.nonzero().tolist():
        at = (pixel[0], slice(None), *pixel[2:])
        logits = weight @ case.image[at] + network.bias.detach()
        torch.testing.assert_close(corrected[at], logits.sigmoid() if outputs == 1 else logits.softmax(0))
    assert wrong.any()
    assert torch.equal(torch.where(wrong, 0, corrected), torch.where(wrong, 0, case.soft_label))


@few
@given(case=cases)
def test_invariants(case):
    check_invariants(case, AssistantCorrection(pointwise(case))(*case))


@few
@given(case=cases)
def test_whole_chain_is_all_correct_and_never_grows(case):
    before = int((predicted(case.soft_label) != case.label).sum())
    steps = [AssistantCorrection(pointwise(case)), AssistantCorrection(pointwise(case)), SimilarityCorrection()]
    soft_label = case.soft_label
    for step in steps:
        soft_label = step(soft_label, case.image, case.label)
        after = check_invariants(case, soft_label)
        assert after <= before
        before = after
    assert before == 0


def test_assistant_that_knows_all_leaves_nothing_false():
    case = make_case(outputs=3)
    oracle = nn.Identity()
    one_hot = torch.zeros_like(case.soft_label).scatter(1, case.label, 5.0)
    assert check_invariants(case, AssistantCorrection(oracle)(case.soft_label, one_hot, case.label)) == 0


def test_right_soft_label_is_unchanged():
    case = make_case(kind="right", outputs=3)
    assert torch.equal(AssistantCorrection(nn.Conv2d(3, 3, 1))(*case), case.soft_label)


def test_assistant_is_frozen_and_without_gradient():
    case = make_case()
    network = nn.Sequential(nn.Conv2d(3, 2, 1), nn.BatchNorm2d(2), nn.Dropout(0.5))
    state = copy.deepcopy(network.state_dict())
    correction = AssistantCorrection(network)
    network.train()
    first, second = correction(*case), correction(*case)
    assert torch.equal(first, second)  # no dropout
    assert not network.training
    assert not first.requires_grad
    assert not any(parameter.requires_grad for parameter in network.parameters())
    for name, value in network.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_soft_label_with_gradient_gives_one_without():
    case = make_case()
    assert not AssistantCorrection(nn.Conv2d(3, 2, 1))(case.soft_label.requires_grad_(), *case[1:]).requires_grad


def test_random_state_of_the_student_is_left_alone():
    case = make_case()
    correction = AssistantCorrection(Noisy())
    state = torch.get_rng_state()
    correction(*case)
    with pytest.raises(ValueError, match="`checkpoint` must be given"):
        AssistantCorrection(lambda: nn.Conv2d(3, 2, 1))
    assert torch.equal(torch.get_rng_state(), state)


def test_inputs_are_not_written():
    case = make_case(kind="wrong")
    before = [tensor.clone() for tensor in case]
    AssistantCorrection(nn.Conv2d(3, 2, 1))(*case)
    assert all(torch.equal(now, then) for now, then in zip(case, before))


def test_metadata_do_not_matter():
    case, correction = make_case(), AssistantCorrection(nn.Conv2d(3, 2, 1))
    corrected = correction(*map(MetaTensor, case))
    assert not isinstance(corrected, MetaTensor)
    assert torch.equal(corrected, correction(*case))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_rounded_single_precision(dtype):
    case = make_case(outputs=3)
    correction = AssistantCorrection(nn.Conv2d(3, 3, 1))
    half = correction(case.soft_label.to(dtype), case.image, case.label)
    wrong = (predicted(case.soft_label.to(dtype)) != case.label).expand_as(half)
    assert half.dtype == dtype
    single = correction.assistant(case.image).logits.softmax(1)
    assert torch.equal(half[wrong], single[wrong].to(dtype))


def test_probabilities_are_single_precision_under_autocast():
    case, correction = make_case(), AssistantCorrection(nn.Conv2d(3, 2, 1))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        corrected = correction(*case)
    assert check_invariants(case, corrected) >= 0
    torch.testing.assert_close(corrected, correction(*case), atol=0.02, rtol=0)


def test_takes_teachers_and_teams():
    case, network = make_case(), nn.Conv2d(3, 2, 1)
    expected = AssistantCorrection(network)(*case)
    assert torch.equal(AssistantCorrection(Teacher(network))(*case), expected)
    team = TeacherTeam([Teacher(network), Teacher(copy.deepcopy(network))])
    torch.testing.assert_close(AssistantCorrection(team)(*case), expected)


def test_checkpoint_is_loaded(tmp_path):
    case, network = make_case(), nn.Conv2d(3, 2, 1)
    torch.save(network.state_dict(), tmp_path / "model.pt")
    expected = AssistantCorrection(network)(*case)
    assert torch.equal(AssistantCorrection(nn.Conv2d(3, 2, 1), tmp_path / "model.pt")(*case), expected)


def test_bundle_config():
    config = {
        "_target_": "monai_kd.corrections.AssistantCorrection",
        "network": {"_target_": "torch.nn.Conv2d", "in_channels": 3, "out_channels": 2, "kernel_size": 1},
    }
    case = make_case()
    check_invariants(case, ConfigParser({"c": config}).get_parsed_content("c")(*case))


def test_to_moves_the_assistant():
    correction = AssistantCorrection(nn.Conv2d(3, 2, 1))
    assert correction.to("meta") is correction
    assert {parameter.device.type for parameter in correction.assistant.parameters()} == {"meta"}


def test_other_classes_are_refused():
    case = make_case()
    with pytest.raises(ValueError, match=r"`network` must give logits .* got \(2, 3, 6, 7\) and \(2, 2, 6, 7\)"):
        AssistantCorrection(nn.Conv2d(3, 3, 1))(*case)


def test_logits_for_a_soft_label_are_refused():
    case = make_case()
    with pytest.raises(ValueError, match="`soft_label` must hold probabilities, but got"):
        AssistantCorrection(nn.Conv2d(3, 2, 1))(10 * case.soft_label - 5, *case[1:])


def test_checkpoint_of_a_teacher_is_refused():
    with pytest.raises(ValueError, match="`checkpoint` must be None for a Teacher, but got `model.pt`"):
        AssistantCorrection(Teacher(nn.Conv2d(3, 2, 1)), "model.pt")


def test_what_is_no_network_is_refused():
    with pytest.raises(TypeError, match="`network` must be a module"):
        AssistantCorrection(3)
