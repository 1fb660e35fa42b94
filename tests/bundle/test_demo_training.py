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
from torch import nn

from monai_kd.bundle import demo_training
from monai_kd.bundle.demo_cases import SliceBatches
from monai_kd.bundle.demo_training import demo_network, distillation, epochs_for, evaluate, train


class BrightTeacher(nn.Module):
    """Class 1 where the image is brighter than a half."""

    def forward(self, image):
        bright = 20 * (image - 0.5)
        return torch.cat([torch.zeros_like(bright), bright, -20 + 0 * bright], dim=1)


def error(network, cases):
    """The share of pixels on which a network and the bright teacher differ."""
    images = next(iter(SliceBatches(cases.unlabelled, 32, 1, seed=9, label=False)))["image"]
    with torch.no_grad():
        return float((network(images).argmax(1) != BrightTeacher()(images).argmax(1)).float().mean())


def silent(text):
    pass


def test_student_is_sixty_times_smaller():
    sizes = [sum(p.numel() for p in demo_network(kind, 0).parameters()) for kind in ("teacher", "student")]
    assert sizes[0] >= 60 * sizes[1]


def test_same_seed_same_weights_and_no_draw_is_used_up():
    torch.manual_seed(3)
    one, two = demo_network("student", 0), demo_network("student", 0)
    drawn = torch.rand(1)
    torch.manual_seed(3)
    assert torch.equal(drawn, torch.rand(1))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters()))


@pytest.mark.parametrize(("step", "epochs"), [(1e-6, 8), (0.1, 7), (1.0, 6)])
def test_slow_machine_has_fewer_epochs_within_bounds(step, epochs):
    assert epochs_for(step) == epochs


def test_distilled_student_follows_the_teacher(few_cases, monkeypatch):
    monkeypatch.setattr(demo_training, "ITERATIONS", 40)
    alone, _ = train("student", few_cases, 1, 0, silent)
    distilled, _ = train("student", few_cases, 1, 0, silent, [distillation(BrightTeacher(), few_cases, 0)])
    assert error(distilled, few_cases) < 0.6 * error(alone, few_cases)

    monkeypatch.setattr(demo_training, "AUTO_SHARE", 0.0)  # a planted fault: distillation that is off
    off, _ = train("student", few_cases, 1, 0, silent, [distillation(BrightTeacher(), few_cases, 0)])
    assert error(off, few_cases) > 0.8 * error(alone, few_cases)


def test_training_is_reproduced_and_says_each_epoch(few_cases, monkeypatch):
    monkeypatch.setattr(demo_training, "ITERATIONS", 2)
    lines = []
    one, curve = train("student", few_cases, 2, 0, lines.append)
    two, again = train("student", few_cases, 2, 0, silent)
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values()))
    assert curve == again
    assert [line.split(":")[0] for line in lines] == ["  epoch 1/2", "  epoch 2/2"]
    assert f"validation Dice {curve[-1]:.3f}" in lines[-1]


class Oracle(nn.Module):
    """Predicts the class from the value of a pixel."""

    def forward(self, image):
        return nn.functional.one_hot(image[:, 0].round().long(), 3).movedim(-1, 1).float()


def test_perfect_network_has_a_dice_of_one(few_cases, tmp_path, monkeypatch):
    perfect = [{**case, "image": case["label"].float()} for case in few_cases.test]
    monkeypatch.setattr(few_cases, "test", perfect)
    found = evaluate(Oracle(), few_cases, tmp_path)
    assert [case.metrics["dice"] for case in found] == [1.0] * 12
    assert [case.metrics["rvd"] for case in found] == [0.0] * 12
