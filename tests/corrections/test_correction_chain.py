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

import pytest
import torch
from hypothesis import given
from monai.data import MetaTensor
from torch import nn

from monai_kd.corrections import AssistantCorrection, CorrectionChain, SimilarityCorrection
from monai_kd.corrections.correction_chain import describe_chain
from monai_kd.networks import Teacher
from tests.corrections.correction_case import cases, check_invariants, make_case, predicted


def pointwise(case):
    convolution = nn.Conv2d if case.image.ndim == 4 else nn.Conv3d
    return convolution(case.image.shape[1], case.soft_label.shape[1], 1)


@given(case=cases)
def test_each_step_is_the_correction_of_the_one_before(case):
    parts = [AssistantCorrection(pointwise(case)), AssistantCorrection(pointwise(case)), SimilarityCorrection()]
    steps = CorrectionChain(parts)(*case)
    assert list(steps) == ["teacher", "assistant", "assistant_2", "similarity"]
    values = list(steps.values())
    assert torch.equal(values[0], case.soft_label)
    for before, part, after in zip(values, parts, values[1:]):
        assert torch.equal(after, part(before, case.image, case.label))
    counts = [int((predicted(value) != case.label).sum()) for value in values]
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] == 0
    check_invariants(case, values[-1])


def test_names():
    def smoothing(soft_label, image, label):
        return soft_label

    chain = CorrectionChain([smoothing, SimilarityCorrection(), SimilarityCorrection()])
    assert list(chain.corrections) == ["smoothing", "similarity", "similarity_2"]
    named = {"boundary": AssistantCorrection(nn.Conv2d(3, 2, 1)), "similarity": SimilarityCorrection()}
    chain = CorrectionChain(named)
    assert list(chain.corrections) == ["boundary", "similarity"]
    assert list(chain.assistants) == ["boundary"]


@pytest.mark.parametrize("outputs", [1, 2, 4])
def test_one_hot_label_is_its_indices(outputs):
    case = make_case(outputs=outputs)
    one_hot = torch.zeros(2, max(2, outputs), 6, 7).scatter(1, case.label, 1.0)
    chain = CorrectionChain([AssistantCorrection(nn.Conv2d(3, outputs, 1)), SimilarityCorrection()])
    for one, other in zip(chain(*case).values(), chain(case.soft_label, case.image, one_hot).values()):
        assert torch.equal(one, other)


def test_metadata_do_not_matter():
    case, chain = make_case(), CorrectionChain([SimilarityCorrection()])
    steps = chain(*map(MetaTensor, case))
    assert not any(isinstance(step, MetaTensor) for step in steps.values())
    assert torch.equal(steps["similarity"], chain(*case)["similarity"])


def test_assistant_with_an_image_of_its_own():
    case, network = make_case(), nn.Conv2d(1, 2, 1)
    grey = case.image.mean(1, keepdim=True)
    chain = CorrectionChain([AssistantCorrection(Teacher(network, image_key="grey")), SimilarityCorrection()])
    assert chain.image_keys == {"image", "grey"}
    steps = chain(case.soft_label, {"image": case.image, "grey": grey}, case.label)
    by_hand = AssistantCorrection(network)(case.soft_label, grey, case.label)
    assert torch.equal(steps["assistant"], by_hand)
    assert torch.equal(steps["similarity"], SimilarityCorrection()(by_hand, case.image, case.label))


def test_to_moves_the_assistants():
    chain = CorrectionChain([AssistantCorrection(nn.Conv2d(3, 2, 1)), SimilarityCorrection()])
    assert chain.to("meta") is chain
    devices = {parameter.device.type for each in chain.assistants.values() for parameter in each.parameters()}
    assert devices == {"meta"}


def test_error_names_the_correction():
    case = make_case()
    chain = CorrectionChain({"boundary": AssistantCorrection(nn.Conv2d(3, 3, 1))})
    with pytest.raises(ValueError, match=r"correction `boundary`: `network` must give logits .* \(2, 3, 6, 7\) and"):
        chain(*case)
    with pytest.raises(RuntimeError, match="correction `boundary`: "):
        chain(case.soft_label, case.image[:, :2], case.label)


@pytest.mark.parametrize("corrections", [[], {}])
def test_none_is_refused(corrections):
    with pytest.raises(ValueError, match="`corrections` must hold at least one correction, but got none"):
        CorrectionChain(corrections)


def test_wrong_corrections_are_refused():
    with pytest.raises(TypeError, match="`corrections` must hold functions of .*, but got Conv2d for `conv2d`|got int"):
        CorrectionChain([3])
    with pytest.raises(ValueError, match="must not have the name `teacher`"):
        CorrectionChain({"teacher": SimilarityCorrection()})


def test_description():
    def smoothing(soft_label, image, label):
        return soft_label

    corrections = {
        "assistant_f": AssistantCorrection(nn.Conv2d(3, 2, 1)),
        "similarity": SimilarityCorrection(max_candidates=1),
        "last": smoothing,
    }
    assert describe_chain(CorrectionChain(corrections)) == (
        "assistant_f AssistantCorrection; similarity SimilarityCorrection max_candidates 1 seed 0; last smoothing"
    )
    texts = [
        describe_chain(CorrectionChain([SimilarityCorrection(**options)]))
        for options in ({}, {"seed": 1}, {"max_candidates": 2}, {"memory_mb": 3})
    ]
    assert len(set(texts)) == 3
    assert texts[0] == texts[3]
