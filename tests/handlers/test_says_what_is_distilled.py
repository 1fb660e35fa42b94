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

"""One line of the trainer's log says from whom the student learns, by what."""

from __future__ import annotations

import pytest
import torch

from monai_kd.handlers import AdversarialDistillationHandler, DistillationHandler, DistillationTerm, LinearSchedule
from monai_kd.losses import KDLoss
from monai_kd.networks import Teacher, TeacherTeam
from tests.handlers.engine_case import student_net
from tests.handlers.training import make_trainer


@pytest.fixture
def lines(caplog):
    """The lines of a training with these handlers."""

    def of(*handlers):
        trainer = make_trainer(student_net(), handlers, epochs=1)
        trainer.logger = trainer.logger.getChild("case")
        caplog.set_level("INFO", trainer.logger.name)
        trainer.run()
        return [record.getMessage() for record in caplog.records if record.getMessage().startswith("distilled")]

    return of


class Critic(torch.nn.Module):
    """A discriminator that looks at the probabilities alone."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = torch.nn.Conv2d(2, 1, 1)

    def forward(self, probability, image, features):
        return self.conv(probability)


def members():
    return [Teacher(torch.nn.Conv2d(1, 2, 1)), Teacher(torch.nn.Sequential(torch.nn.Conv2d(1, 2, 1)))]


def test_terms_of_a_team(lines):
    terms = [DistillationTerm(KDLoss(), 0.1), DistillationTerm(KDLoss(), LinearSchedule(0, 1, 5), name="late")]
    handler = DistillationHandler(TeacherTeam(members()), terms, unlabelled="mixed")
    expected = "distilled from Conv2d, Sequential by 0.1 kd + scheduled late, also on blends of its images"
    assert lines(handler) == [expected]


def test_adversary_beside_terms(lines):
    discriminator = Critic()
    adversary = AdversarialDistillationHandler(
        TeacherTeam(members()),
        discriminator,
        torch.optim.SGD(discriminator.parameters(), 0.1),
        student_layers=[],
        max_accuracy=0.8,
    )
    first, second = lines(DistillationHandler(members()[0], [DistillationTerm(KDLoss(), 0.1)]), adversary)
    assert first == "distilled from Conv2d by 0.1 kd"
    assert second.startswith("distilled from Conv2d, Sequential by 0.2 adversarial of probabilities (alternate)")
    assert second.endswith("discriminator up to an accuracy of 0.8")


def test_plain_training_says_nothing(lines):
    assert lines() == []
