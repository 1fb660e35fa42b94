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

"""Trainings whose classes overlap, and networks whose outputs are probabilities."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from monai_kd.corrections import SimilarityCorrection
from monai_kd.handlers import DistillationTerm, SoftLabelCorrectionHandler
from monai_kd.handlers._overlap import with_background
from monai_kd.losses import KDLoss
from monai_kd.networks import Teacher, TeacherTeam
from tests.handlers.adversarial_case import adversary, teacher_nets
from tests.handlers.engine_case import Net, hint, make_data, same, seeded, soften, student_net, teacher_net
from tests.handlers.training import distil, handler_of, make_trainer, sgd

pytestmark = pytest.mark.filterwarnings("ignore:.*drowns the supervised loss:UserWarning")


def nested_data(classes: int = 2) -> list[dict[str, torch.Tensor]]:
    """Labels of two classes, the second in the first, and pixels of none."""
    images = [item["image"] for item in make_data()]
    return [{"image": image, "label": torch.cat([(image > -0.5).float(), (image > 0.5).float()])} for image in images]


def entropy(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    return F.binary_cross_entropy_with_logits(logits, label)


def sigmoid_term(temperature: float = 2.0) -> DistillationTerm:
    return DistillationTerm(KDLoss(temperature, activation="sigmoid"), 0.5)


class TestOverlappingClasses:
    def test_equal_a_loop_by_hand(self):
        student, loop, network = student_net(), student_net(), teacher_net().eval()
        options = {"loss_function": entropy, "optimizer": sgd(student.parameters())}
        distil(student, [sigmoid_term()], network, data=nested_data(), **options)
        loop.train()
        optimizer, data = sgd(loop.parameters()), nested_data()
        for step in range(8):
            pair = data[2 * (step % 4) : 2 * (step % 4) + 2]
            image, label = (torch.stack([item[key] for item in pair]) for key in ("image", "label"))
            logits = loop(image)
            p, q = (network(image).detach() / 2).sigmoid(), (logits / 2).sigmoid()
            divergence = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
            optimizer.zero_grad()
            (entropy(logits, label) + 0.5 * 4 * divergence.sum(1).mean()).backward()
            optimizer.step()
        for one, other in zip(student.parameters(), loop.parameters()):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)

    def test_under_a_softmax_are_refused_before_the_first_step(self):
        student = student_net()
        with pytest.raises(ValueError, match=r'term `kd`: `label` must be .* overlap .*`KDLoss.activation="sigmoid".`'):
            distil(student, [DistillationTerm(KDLoss())], data=nested_data(), loss_function=entropy)
        assert all(torch.equal(*pair) for pair in zip(student.parameters(), student_net().parameters()))

    @pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
    def test_of_a_team_are_averaged_as_the_term_reads_them(self, activation):
        team = TeacherTeam([Teacher(teacher_net())], activation=activation)
        if activation == "sigmoid":
            handler_of(sigmoid_term(), teacher=team)
            wrong, message = DistillationTerm(KDLoss()), "'sigmoid' and 'softmax'; pass"
        else:
            handler_of(DistillationTerm(KDLoss()), DistillationTerm(soften), teacher=team)
            wrong, message = sigmoid_term(), r"'softmax' and 'sigmoid'; pass `TeacherTeam\(..., activation='sigmoid'\)`"
        with pytest.raises(ValueError, match="must be that of the loss of term `kd`, but got " + message):
            handler_of(wrong, teacher=team)
        handler_of(DistillationTerm(wrong.loss, teacher="teacher_0"), teacher=team)

    def test_are_no_labels_of_a_correction(self):
        handlers = [handler_of(sigmoid_term()), SoftLabelCorrectionHandler([SimilarityCorrection()])]
        with pytest.raises(ValueError, match=r"`label` must be of one class at each pixel, .* overlap .a sum of 2"):
            make_trainer(student_net(), handlers, data=nested_data(), loss_function=entropy).run()

    @pytest.mark.parametrize("probabilities", [False, True])
    def test_are_seen_by_a_discriminator_as_logits_alone(self, probabilities):
        handler = adversary(teacher_nets(1), probabilities=probabilities)
        trainer = make_trainer(student_net(), [handler], data=nested_data(), loss_function=entropy, epochs=1)
        if probabilities:
            with pytest.raises(ValueError, match="classes that overlap .*; pass `probabilities=False`"):
                trainer.run()
        else:
            trainer.run()

    def test_of_which_a_student_that_predicts_both_is_not_collapsed(self):
        """Its second channel is never the larger one, which for a softmax would be a single class."""

        class Sure(Net):
            def forward(self, image: torch.Tensor) -> torch.Tensor:
                both = torch.cat([image + 0.6, image - 0.5], dim=1)
                return 8 * both + 0 * super().forward(image)

        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".*alone in all of epoch")
            distil(seeded(Sure), [sigmoid_term()], seeded(Sure), data=nested_data(), loss_function=entropy)


class TestWithBackground:
    def test_gives_the_largest_channel_its_class(self):
        logits = torch.tensor([[-1.0, 2.0, 1.0], [-2.0, -1.0, 3.0]]).view(1, 2, 1, 3)
        label = torch.tensor([[0.0, 1.0, 1.0], [0.0, 0.0, 1.0]]).view(1, 2, 1, 3)
        student, masks, teacher = with_background(logits, label, -logits)
        assert student.argmax(1).flatten().tolist() == [0, 1, 2]
        assert masks.argmax(1).flatten().tolist() == [0, 1, 1]
        assert teacher.argmax(1).flatten().tolist() == [2, 2, 0]

    def test_leaves_one_channel_and_other_labels(self):
        one, label = torch.randn(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)
        assert with_background(one, label, one) == (one, label, one)
        assert with_background(torch.zeros(1, 3, 2, 2), None, torch.zeros(1, 3, 2, 2))[1] is None


class Soft(Net):
    """Ends in a softmax."""

    def forward(self, image: torch.Tensor) -> Any:
        return super().forward(image).softmax(1)


def said(student: nn.Module, term: DistillationTerm, teacher: Any = None) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        distil(student, [term], teacher, optimizer=sgd(student.parameters()))
    return [str(each.message) for each in caught if "probabilities" in str(each.message)]


class TestProbabilities:
    def test_of_a_teacher_are_warned_of_once(self):
        (message,) = said(student_net(), DistillationTerm(soften), seeded(Soft))
        assert "`network` Soft of a `Teacher` must give logits" in message

    def test_of_a_teacher_that_says_so_teach_as_its_logits(self):
        students, network, soft = [student_net(), student_net()], seeded(Net, 3), seeded(Soft, 3)
        for student, teacher in zip(students, (network, Teacher(soft, outputs="softmax"))):
            assert said(student, DistillationTerm(KDLoss(2.0)), teacher) == []
        for one, other in zip(*(student.parameters() for student in students)):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)

    def test_of_a_student_are_warned_of_where_a_term_compares_logits(self):
        (message,) = said(seeded(Soft), DistillationTerm(soften))
        assert "the student must give logits" in message
        assert "train it without its softmax" in message
        assert said(seeded(Soft), DistillationTerm(hint, 0.1, "norm", "norm", nn.Conv2d(4, 6, 1))) == []

    def test_logits_are_not_warned_of_and_nothing_else_changes(self):
        students = [student_net(), student_net()]
        for student, outputs in zip(students, (None, "logits")):
            assert said(student, DistillationTerm(soften), Teacher(teacher_net(), outputs=outputs)) == []
        assert same(*students)
