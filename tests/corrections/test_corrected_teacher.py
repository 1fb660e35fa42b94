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

"""A teacher that is corrected: the old handler's numbers, labels of a part of the batch, what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from monai_kd.corrections import (
    AssistantCorrection,
    CorrectedTeacher,
    SimilarityCorrection,
    store_soft_labels,
)
from monai_kd.handlers import (
    AdversarialDistillationHandler,
    DistillationTerm,
    SoftLabelCorrectionHandler,
)
from monai_kd.networks import Teacher, TeacherTeam
from tests.handlers.engine_case import make_batches, make_data, same, soften, student_net, teacher_net
from tests.handlers.training import handler_of, make_trainer

pytestmark = pytest.mark.filterwarnings("ignore:.*drowns the supervised loss:UserWarning")


def parts() -> dict[str, Any]:
    return {"assistant": AssistantCorrection(student_net(seed=5)), "similarity": SimilarityCorrection()}


def corrected(**corrections: Any) -> CorrectedTeacher:
    return CorrectedTeacher(Teacher(teacher_net()), corrections or parts())


def test_gives_the_numbers_of_the_old_handler():
    one, other = student_net(), student_net()
    trainer = make_trainer(one, [handler_of(DistillationTerm(soften), teacher=corrected())])
    trainer.run()
    distillation = handler_of(DistillationTerm(soften))
    before = distillation.teacher
    with pytest.warns(FutureWarning, match="goes with the next release; pass `DistillationHandler"):
        correction = SoftLabelCorrectionHandler(parts())
    old = make_trainer(other, [distillation, correction])
    old.run()
    assert same(one, other)
    assert trainer.state.metrics == old.state.metrics
    assert trainer.state.metrics["false_pixels_similarity"] == 0 < trainer.state.metrics["false_pixels_assistant"]
    assert distillation.teacher is before


def test_images_behind_the_labels_are_left_alone():
    batch = make_batches()[0]
    alone = Teacher(teacher_net())(batch["image"]).logits
    logits = corrected()(batch | {"label": batch["label"][:1]}).logits
    assert torch.equal(logits[1:], alone[1:])
    assert torch.equal(logits[:1].argmax(1, keepdim=True).float(), batch["label"][:1])


def test_with_images_without_labels():
    """The false pixels of those with labels alone are counted."""
    metrics = []
    unlabelled = [{"image": item["image"][None]} for item in make_data(4)]
    for more in (None, unlabelled):
        handler = handler_of(DistillationTerm(soften), teacher=corrected(), unlabelled=more)
        trainer = make_trainer(student_net(), [handler], epochs=1)
        trainer.run()
        metrics.append(dict(trainer.state.metrics))
    assert metrics[0] == metrics[1]


def test_steps_go_from_the_teacher_to_what_is_returned():
    batch, teacher = make_batches()[0], corrected()
    steps = teacher.steps(batch)
    assert list(steps) == ["teacher", "assistant", "similarity"]
    assert torch.equal(steps["teacher"], Teacher(teacher_net())(batch["image"]).logits.softmax(1))
    torch.testing.assert_close(steps["similarity"], teacher(batch).logits.softmax(1))


def test_counts_are_means_until_they_are_forgotten():
    teacher, batch = corrected(), make_batches()[0]
    assert teacher.false_pixels() == {}
    teacher(batch)
    once = teacher.false_pixels()
    teacher(batch)
    assert teacher.false_pixels() == once
    teacher.forget_counts()
    assert teacher.false_pixels() == {}


def test_weights_of_assistants_are_its_own():
    teacher = corrected()
    assistant, own = Teacher(student_net(seed=5)), teacher.teacher
    assert len(teacher.named_tensors()) == len(assistant.named_tensors()) + len(own.named_tensors())
    assert len(list(teacher.parameters())) == len([*assistant.parameters(), *own.parameters()])
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


def test_a_team_keeps_its_members():
    team = TeacherTeam({"one": Teacher(teacher_net()), "two": Teacher(teacher_net(channels=5))})
    teacher, batch = CorrectedTeacher(team, [SimilarityCorrection()]), make_batches()[0]
    assert list(teacher.members) == list(teacher(batch).members) == ["one", "two"]
    assert torch.equal(teacher(batch).members["one"].logits, team.members["one"](batch).logits)


def test_soft_labels_are_stored_once_for_both_forms(tmp_path):
    data = [{"image": item["image"], "label": item["label"]} for item in make_data(2)]
    plain = Teacher(teacher_net())
    assert store_soft_labels(data, corrected(), tmp_path, "1") == 2
    assert store_soft_labels(data, plain, tmp_path, "1", parts()) == 0
    assert store_soft_labels(data, plain, tmp_path, "1") == 2
    with pytest.raises(ValueError, match="must be empty for a `CorrectedTeacher`"):
        store_soft_labels(data, corrected(), tmp_path, "1", parts())


@pytest.mark.parametrize("label", [None, "missing"])
def test_no_label(label):
    batch = {"image": make_batches()[0]["image"]} | ({} if label else {"label": None})
    with pytest.raises(ValueError, match="`label` must come with each batch .*, but got NoneType"):
        corrected()(batch)


def test_no_term_that_it_could_help():
    term = DistillationTerm(soften, teacher="one")
    team = CorrectedTeacher(TeacherTeam({"one": Teacher(teacher_net())}), parts())
    with pytest.raises(ValueError, match=r"but got \['soften'\], on which a correction has no effect"):
        handler_of(term, teacher=team)


def test_a_discriminator_sees_the_teacher_itself():
    discriminator: Any = nn.Conv2d(3, 1, 1)
    optimizer = torch.optim.SGD(discriminator.parameters(), 0.1)
    with pytest.raises(TypeError, match="must be a Teacher or TeacherTeam, but got CorrectedTeacher"):
        AdversarialDistillationHandler(corrected(), discriminator, optimizer, [])  # type: ignore[arg-type]
