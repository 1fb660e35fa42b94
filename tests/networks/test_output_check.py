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

import warnings
from typing import Any

import pytest
import torch
from monai.data import MetaTensor
from torch import nn

from monai_kd.losses import KDLoss
from monai_kd.networks import Teacher, TeacherTeam
from monai_kd.networks.last_sigmoid import LastSigmoid
from monai_kd.networks.output_check import OutputCheck, logits_of


class Ends(nn.Module):
    """A convolution and what is done to its logits."""

    def __init__(self, end: Any, channels: int = 2, gain: float = 5.0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, channels, 3, padding=1)
        self.conv.weight.data *= gain
        self.end = end

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.end(self.conv(image))


def said(network: nn.Module, batches: int = 1, **options: Any) -> list[str]:
    """What is warned of in so many batches."""
    teacher = Teacher(network, **options)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(batches):
            teacher(torch.randn(2, 1, 16, 16))
    return [str(each.message) for each in caught]


def half(logits: torch.Tensor) -> torch.Tensor:
    return nn.functional.interpolate(logits.sigmoid(), scale_factor=0.5, mode="bilinear")


class TestNoticed:
    @pytest.mark.parametrize("channels", [2, 5])
    @pytest.mark.parametrize("kind", [lambda network: network, MetaTensor])
    def test_softmax_in_the_first_batch(self, channels, kind):
        (message,) = said(Ends(lambda logits: kind(logits.softmax(1)), channels), batches=4)
        assert "`network` Ends of a `Teacher` must give logits" in message
        assert "probabilities of a softmax: all are in [0, 1] and sum to 1 over the channels" in message
        assert "pass `Teacher(..., outputs='softmax')`" in message

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_softmax_in_half_precision(self, dtype):
        assert len(said(Ends(lambda logits: logits.softmax(1).to(dtype), 14), batches=3)) == 1

    @pytest.mark.parametrize("channels", [1, 3])
    @pytest.mark.parametrize("gain", [0.01, 5.0])
    def test_sigmoid_in_the_first_batch_however_sure(self, channels, gain):
        (message,) = said(Ends(nn.Sigmoid(), channels, gain))
        assert "probabilities of a sigmoid" in message
        assert "outputs='sigmoid'" in message

    def test_sigmoid_whose_maps_are_resized_in_the_second(self):
        assert said(Ends(half, 1, 40.0), batches=1) == []
        assert len(said(Ends(half, 1, 40.0), batches=4)) == 1

    @pytest.mark.parametrize("end", [nn.Softmax(1), nn.Sigmoid()])
    def test_torchscript(self, end, tmp_path):
        torch.jit.trace(Ends(end).eval(), torch.zeros(1, 1, 16, 16)).save(str(tmp_path / "model.ts"))
        assert len(said(tmp_path / "model.ts", batches=3)) == 1

    def test_members_of_a_team(self):
        team = TeacherTeam([Teacher(Ends(nn.Identity())), Teacher(Ends(nn.Softmax(1)))])
        with pytest.warns(UserWarning, match="outputs='softmax'"):
            team(torch.randn(1, 1, 8, 8))


class TestLogitsAreNot:
    @pytest.mark.parametrize(
        "end",
        [
            nn.Identity(),
            nn.LogSoftmax(1),
            nn.SiLU(),
            lambda logits: logits * logits.sigmoid(),  # a gate
            lambda logits: logits.sigmoid().mul_(logits),
            lambda logits: logits.sigmoid() - 0.5,
        ],
    )
    def test_of_many_batches(self, end):
        assert said(Ends(end, 3), batches=4) == []

    @pytest.mark.parametrize("channels", [1, 2])
    def test_that_lie_in_the_range_by_chance(self, channels):
        low = Ends(lambda logits: 0.5 + 0.01 * logits.tanh(), channels)
        assert said(low, batches=8) == []

    def test_of_a_constant(self):
        assert said(Ends(torch.zeros_like), batches=4) == []

    def test_after_one_batch_outside(self):
        check = OutputCheck()
        values = [torch.rand(1, 1, 9, 9), torch.randn(1, 1, 9, 9), *[torch.linspace(0, 1, 81).view(1, 1, 9, 9)] * 4]
        assert [check(value) for value in values] == [None] * 6

    def test_that_the_user_says_they_are(self):
        assert said(Ends(nn.Softmax(1)), batches=3, outputs="logits") == []

    def test_of_an_attention_before_the_last_layer(self):
        class Attends(Ends):
            def forward(self, image: torch.Tensor) -> torch.Tensor:
                attention = super().forward(image)
                return (attention * image).mul(0.1) + 0.5

        assert said(Attends(nn.Sigmoid()), batches=1) == []


class TestTurnedIntoLogits:
    """As if the network had given the logits that its probabilities come from."""

    @pytest.mark.parametrize("channels", [2, 5])
    @pytest.mark.parametrize("temperature", [1.0, 4.0])
    def test_of_a_softmax(self, channels, temperature):
        logits, student = torch.randn(2, channels, 8, 8), torch.randn(2, channels, 8, 8)
        told = Teacher(nn.Softmax(1), outputs="softmax")(logits).logits
        shift = told - logits
        torch.testing.assert_close(shift, shift[:, :1].expand_as(shift))
        loss = KDLoss(temperature)
        torch.testing.assert_close(loss(student, told), loss(student, logits))

    @pytest.mark.parametrize("channels", [1, 4])
    def test_of_a_sigmoid(self, channels):
        logits = 3 * torch.randn(2, channels, 8, 8, dtype=torch.float64)
        told = Teacher(nn.Sigmoid(), outputs="sigmoid")(logits).logits
        torch.testing.assert_close(told, logits, rtol=1e-4, atol=1e-4)

    def test_of_one_channel_as_its_foreground(self):
        logits = torch.randn(2, 1, 8, 8)
        told = Teacher(nn.Sigmoid(), outputs="softmax")(logits).logits
        torch.testing.assert_close(told, logits, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize(("outputs", "end"), [("softmax", nn.Softmax(1)), ("sigmoid", nn.Sigmoid())])
    def test_finite_where_they_are_0_or_1(self, outputs, end):
        told = Teacher(end, outputs=outputs)(1e4 * torch.randn(2, 3, 8, 8)).logits
        assert told.isfinite().all()
        assert told.amax() - told.amin() > 80 or outputs == "sigmoid"

    def test_of_each_output_and_of_each_member(self):
        several = Teacher(Ends(lambda logits: [logits.softmax(1)] * 2), outputs="softmax")
        assert all(output.max() <= 0 for output in several(torch.randn(1, 1, 8, 8)).outputs)
        logits = torch.randn(1, 3, 4, 4)
        team = TeacherTeam([Teacher(nn.Softmax(1), outputs="softmax"), Teacher(nn.Identity())])
        torch.testing.assert_close(team(logits).logits.softmax(1), logits.softmax(1))


class TestRefuses:
    @pytest.mark.parametrize("outputs", ["probabilities", "Softmax", True, 3])
    def test_other_words(self, outputs):
        with pytest.raises(ValueError, match=f"`outputs` must be 'logits', 'softmax', .* but got {outputs!r}"):
            Teacher(nn.Identity(), outputs=outputs)

    @pytest.mark.parametrize("outputs", ["softmax", "sigmoid"])
    def test_logits_declared_as_probabilities(self, outputs):
        with pytest.raises(ValueError, match="must be 'logits' for a network that gives no probabilities, but got"):
            Teacher(nn.Identity(), outputs=outputs)(torch.randn(1, 2, 8, 8))

    def test_sigmoid_declared_as_softmax(self):
        with pytest.raises(ValueError, match="must be 'sigmoid' where the probabilities do not sum to 1 .* got 'softm"):
            logits_of(torch.rand(1, 3, 8, 8), "softmax", check=True)


def test_last_sigmoid_knows_a_part_of_its_result():
    with LastSigmoid() as last:
        probability = torch.randn(2, 3, 4, 4).sigmoid()
        other = probability.clone()
    assert last.is_result(probability)
    assert last.is_result(probability[:, :2])
    assert not last.is_result(other)
