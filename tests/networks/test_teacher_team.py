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

"""The mean of several teachers against numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from monai.bundle import ConfigParser
from scipy.special import expit, logsumexp, softmax
from torch import nn

from monai_kd.networks import Teacher, TeacherTeam


class Says(nn.Module):
    """A network that says the same of each image."""

    def __init__(self, logits: torch.Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)
        self.inner = nn.Identity()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.inner(self.logits.clone())


def make_team(*logits: torch.Tensor, **kwargs) -> TeacherTeam:
    return TeacherTeam([Teacher(Says(each)) for each in logits], **kwargs)


IMAGE = torch.zeros(1, 1, 4, 4)


class TestMean:
    @given(
        classes=st.integers(2, 5),
        weights=st.lists(st.floats(0.01, 100), min_size=1, max_size=4),
        size=st.sampled_from([(4, 4), (2, 3, 4)]),
    )
    def test_of_the_probabilities(self, classes, weights, size):
        draw = np.random.default_rng(0)
        logits = draw.normal(size=(len(weights), 2, classes, *size)).astype(np.float32) * 3
        team = make_team(*map(torch.from_numpy, logits), weights=weights)
        expected = np.average(softmax(logits.astype(np.float64), axis=2), axis=0, weights=weights)
        found = team(torch.zeros(1, 1, *size)).logits
        np.testing.assert_allclose(softmax(found.numpy(), axis=1), expected, rtol=2e-5, atol=1e-7)
        np.testing.assert_allclose(found.exp().sum(1).numpy(), 1, rtol=1e-5)

    @pytest.mark.parametrize("weights", [None, [1, 3]])
    def test_of_one_channel(self, weights):
        logits = np.random.default_rng(0).normal(size=(2, 2, 1, 4, 4)).astype(np.float32) * 4
        found = make_team(*map(torch.from_numpy, logits), weights=weights)(IMAGE).logits
        assert found.shape == (2, 1, 4, 4)
        np.testing.assert_allclose(
            expit(found.numpy()), np.average(expit(logits), axis=0, weights=weights), rtol=1e-5, atol=1e-7
        )

    def test_of_confident_teachers_is_finite(self):
        sure, unsure = torch.tensor([1e4, -1e4]).reshape(1, 2, 1, 1), torch.zeros(1, 2, 1, 1)
        for logits in ([sure, sure], [sure, -sure], [sure, unsure], [sure[:, :1], -sure[:, :1]], [sure[:, :1]] * 2):
            assert make_team(*logits)(IMAGE).logits.isfinite().all()
        torch.testing.assert_close(make_team(sure, -sure)(IMAGE).logits.exp().flatten(), torch.tensor([0.5, 0.5]))

    def test_in_half_precision_is_computed_in_single(self):
        logits = [torch.randn(1, 3, 4, 4).half() for _ in range(2)]
        found = make_team(*logits)(IMAGE).logits
        assert found.dtype == torch.float32
        expected = logsumexp(np.stack([each.float().log_softmax(1).numpy() for each in logits]), axis=0) - np.log(2)
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-6)

    def test_of_equal_teachers_is_each(self):
        logits = torch.randn(2, 3, 4, 4)
        found = make_team(logits, logits, logits, weights=[5, 1, 1])(IMAGE).logits
        torch.testing.assert_close(found.softmax(1), logits.softmax(1))


class TestMembers:
    def test_are_named_and_say_their_own(self):
        logits = {"big": torch.randn(1, 2, 4, 4), "wide": torch.randn(1, 2, 4, 4)}
        team = TeacherTeam({name: Teacher(Says(each)) for name, each in logits.items()})
        knowledge = team(IMAGE)
        assert list(team.members) == list(knowledge.members) == ["big", "wide"]
        assert torch.equal(knowledge.of("wide").logits, logits["wide"])
        assert list(make_team(*logits.values()).members) == ["teacher_0", "teacher_1"]

    def test_see_their_own_images(self):
        team = TeacherTeam([Teacher(nn.Conv2d(1, 2, 1)), Teacher(nn.Conv2d(1, 2, 1), image_key="smooth")])
        assert team.image_keys == {"image", "smooth"}
        images = {"image": torch.randn(1, 1, 4, 4), "smooth": torch.randn(1, 1, 4, 4)}
        knowledge = team(images)
        for name, key in (("teacher_0", "image"), ("teacher_1", "smooth")):
            assert torch.equal(knowledge.of(name).logits, team.members[name].network(images[key]))

    def test_give_layers_one_by_one(self):
        team = make_team(torch.randn(1, 2, 4, 4), torch.randn(1, 2, 4, 4))
        capture = team.capture(["inner"], "teacher_1")
        knowledge = team(IMAGE)
        assert list(knowledge.of("teacher_1").features) == ["inner"]
        assert knowledge.of("teacher_0").features == knowledge.features == {}
        capture.remove()
        assert team(IMAGE).of("teacher_1").features == {}

    def test_without_a_name_give_no_layer(self):
        team = make_team(torch.zeros(1, 2, 4, 4))
        with pytest.raises(
            ValueError, match=r"`teacher` must name one of \['teacher_0'\] where a term listens to a layer"
        ):
            team.capture(["inner"])

    def test_are_guarded_and_move_together(self):
        team = make_team(torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 4))
        parameters = list(team.parameters())
        assert len(parameters) == 2
        assert not any(parameter.requires_grad for parameter in parameters)
        assert not team(IMAGE).logits.requires_grad
        assert team.to("meta") is team
        assert {parameter.device.type for parameter in team.parameters()} == {"meta"}


class TestRefuses:
    @pytest.mark.parametrize("teachers", [[], {}])
    def test_no_teacher(self, teachers):
        with pytest.raises(ValueError, match="`teachers` must hold at least one teacher, but got none"):
            TeacherTeam(teachers)

    @pytest.mark.parametrize("weights", [[1.0], [1, 2, 3], [0.0, 1.0], [-1.0, 2.0], [], [1.0, math.nan], [1e308] * 2])
    def test_weights(self, weights):
        with pytest.raises(
            ValueError, match="`weights` must hold one positive number for each of the 2 teachers, .* but got"
        ):
            make_team(torch.zeros(1, 2, 4, 4), torch.zeros(1, 2, 4, 4), weights=weights)

    def test_shapes(self):
        team = make_team(torch.zeros(1, 2, 4, 4), torch.zeros(1, 3, 4, 4))
        with pytest.raises(
            ValueError, match=r"must give logits of one shape, but got {'teacher_0': \(1, 2, 4, 4\), 'teacher_1"
        ):
            team(IMAGE)


class TestOverlappingClasses:
    def test_mean_of_each_channel(self):
        first, second = (3 * torch.randn(2, 3, 4, 4) for _ in range(2))
        mean = make_team(first, second, weights=[3, 1], activation="sigmoid")(IMAGE).logits.sigmoid()
        torch.testing.assert_close(mean, 0.75 * first.sigmoid() + 0.25 * second.sigmoid())

    def test_of_one_channel_as_by_softmax(self):
        logits = [torch.randn(2, 1, 4, 4) for _ in range(2)]
        one, other = (make_team(*logits, activation=each)(IMAGE).logits for each in ("softmax", "sigmoid"))
        assert torch.equal(one, other)

    def test_finite_where_sure(self):
        logits = [1e4 * torch.randn(2, 3, 4, 4), -1e4 * torch.randn(2, 3, 4, 4)]
        assert make_team(*logits, activation="sigmoid")(IMAGE).logits.isfinite().all()

    def test_other_words_are_refused(self):
        with pytest.raises(ValueError, match="`activation` must be one of 'softmax', 'sigmoid', but got 'tanh'"):
            make_team(torch.zeros(1, 1, 2, 2), activation="tanh")


def test_yaml():
    member = {"_target_": "monai_kd.networks.Teacher", "network": "$torch.nn.Conv2d(1, 2, 1)"}
    parser = ConfigParser(
        {
            "team": {
                "_target_": "monai_kd.networks.TeacherTeam",
                "teachers": {"a": member, "b": member | {"image_key": "smooth"}},
                "weights": [1, 2],
            }
        }
    )
    team = parser.get_parsed_content("team")
    assert team.image_keys == {"image", "smooth"}
    assert team.weights == pytest.approx([1 / 3, 2 / 3])


def test_one_teacher_twice():
    teacher = Teacher(torch.nn.Conv2d(1, 2, 1))
    with pytest.raises(ValueError, match="must be different objects, but got one twice"):
        TeacherTeam([teacher, teacher])
