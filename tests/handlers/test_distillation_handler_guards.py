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

"""What is refused, and with which words."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from monai_kd.handlers import DistillationTerm
from monai_kd.networks import ChannelAdapter, Teacher, TeacherTeam
from tests.handlers.engine_case import Net, hint, make_data, same, seeded, soften, student_net, teacher_net
from tests.handlers.training import distil, handler_of, make_trainer

pytestmark = pytest.mark.filterwarnings("ignore:.*drowns the supervised loss:UserWarning")


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf"), None, "0.5"])
def test_supervised_weight(weight):
    with pytest.raises(ValueError, match=f"`supervised_weight` must be a finite number >= 0, but got {weight!r}"):
        handler_of(DistillationTerm(soften), supervised_weight=weight)


class TestNetworks:
    @pytest.mark.parametrize(("student", "teacher"), [("midle", "middle"), ("middle", "midle")])
    def test_unknown_layer(self, student, teacher):
        network = student_net()
        trainer = make_trainer(network, [handler_of(DistillationTerm(hint, 1.0, student, teacher))])
        with pytest.raises(
            ValueError, match="must be a module of Net, but got `midle`; the nearest names are `middle`, (`.*`, ){3}`"
        ):
            trainer.run()
        assert trainer.state.iteration == 0
        assert same(network, student_net())

    def test_layer_of_a_team_without_a_member(self):
        team = TeacherTeam([Teacher(teacher_net()), Teacher(teacher_net())])
        with pytest.raises(ValueError, match=r"must name one of \['teacher_0', 'teacher_1'\] where a term listens"):
            distil(student_net(), [DistillationTerm(hint, 1.0, "norm", "norm")], team)

    def test_layer_of_a_torchscript_teacher(self):
        scripted = torch.jit.trace(teacher_net().eval(), torch.zeros(1, 1, 16, 16))
        with pytest.raises(ValueError, match="layer `norm` cannot be captured: a TorchScript network"):
            distil(student_net(), [DistillationTerm(hint, 1.0, "norm", "norm")], scripted)

    def test_missing_image(self):
        terms, teacher = [DistillationTerm(soften)], Teacher(teacher_net(), image_key="smooth")
        with pytest.raises(ValueError, match=r"but got `smooth` of \['image', 'label'\]"):
            distil(student_net(), terms, teacher)
        pairs = [(item["image"], item["label"]) for item in make_data()]
        with pytest.raises(ValueError, match="but got `smooth` of list"):
            distil(student_net(), terms, teacher, data=pairs, prepare_batch=lambda batch, *_, **__: tuple(batch))

    def test_output_that_is_no_tensor(self):
        class Named(nn.Conv2d):
            def forward(self, image: torch.Tensor) -> Any:
                return {"logits": super().forward(image)}

        with pytest.raises(ValueError, match="must return one logits tensor or a list of them, but got dict"):
            distil(student_net(), [DistillationTerm(soften)], Named(1, 2, 1))


class TestCapturedLayers:
    def test_inplace_activation_leaves_the_map_alone(self):
        seen = []

        def note(student: torch.Tensor, teacher: torch.Tensor, label: Any) -> torch.Tensor:
            seen.append(student.detach().clone())
            return hint(student, teacher)

        student = student_net()
        reference = copy.deepcopy(student).train()
        distil(student, [DistillationTerm(note, 0.1, "norm", "norm", nn.Conv2d(4, 6, 1))], epochs=1)
        student_map = reference.norm(reference.encoder(torch.stack([item["image"] for item in make_data(2)])))
        assert student_map.min() < 0  # ReLU would have made it 0

        seen.clear()
        distil(student_net(), [DistillationTerm(note, 0.1, "norm", "norm")], teacher_net(channels=4), epochs=1)
        assert torch.equal(seen[0], student_map)

    def test_functional_inplace_operation(self):
        class Inplace(Net):
            def forward(self, image: torch.Tensor) -> torch.Tensor:
                return self.head(F.relu(self.norm(self.encoder(image)), inplace=True))

        with pytest.raises(RuntimeError, match="the map of layer `norm` was changed in place after"):
            distil(seeded(Inplace), [DistillationTerm(hint, 1.0, "norm", "norm")])

    def test_layer_called_twice(self):
        class Shared(Net):
            def forward(self, image: torch.Tensor) -> torch.Tensor:
                return self.head(self.middle(self.middle(self.encoder(image))))

        with pytest.raises(RuntimeError, match="layer `middle` must be called once per forward pass, but got 2 calls"):
            distil(seeded(Shared), [DistillationTerm(hint, 1.0, "middle", "middle")])

    def test_layer_of_several_tensors(self):
        class Twins(nn.Module):
            def forward(self, feature: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
                return feature, feature

        class Several(Net):
            def __init__(self) -> None:
                super().__init__()
                self.twins = Twins()

            def forward(self, image: torch.Tensor) -> torch.Tensor:
                return self.head(self.twins(self.encoder(image))[0])

        with pytest.raises(RuntimeError, match="layer `twins` must return one tensor, but got tuple"):
            distil(seeded(Several), [DistillationTerm(hint, 1.0, "twins", "norm")])

    def test_layer_that_is_not_called(self):
        class Idle(Net):
            def forward(self, image: torch.Tensor) -> torch.Tensor:
                return self.head(self.encoder(image))

        with pytest.raises(RuntimeError, match="layer `norm` was not captured in this forward pass"):
            distil(seeded(Idle), [DistillationTerm(hint, 1.0, "norm", "norm")])


class TestTerms:
    def test_other_number_of_classes(self):
        term = DistillationTerm(soften, name="kd")
        student = student_net()
        with pytest.raises(ValueError, match=r"term `kd`: .* but got \(2, 2, 16, 16\) and \(2, 3, 16, 16\)"):
            distil(student, [term], teacher_net(classes=3))
        assert torch.equal(student.head.weight, student_net().head.weight)  # before the first step

    def test_other_spatial_size(self):
        with pytest.raises(ValueError, match=r"term `soften`: .* \(2, 2, 16, 16\) and \(2, 2, 8, 8\); both"):
            distil(student_net(), [DistillationTerm(soften)], nn.Conv2d(1, 2, 1, stride=2))

    def test_map_of_other_channels(self):
        term = DistillationTerm(hint, 1.0, "norm", "norm", ChannelAdapter(5, 6), name="hints")
        with pytest.raises(ValueError, match="term `hints`: `feature` must have 5 channels, but got 4; build"):
            distil(student_net(), [term])

    def test_second_of_two_of_one_name(self):
        terms = [DistillationTerm(soften), DistillationTerm(soften, 1.0, "norm", "norm")]
        with pytest.raises(RuntimeError, match="term `soften_2`: The size of tensor"):
            distil(student_net(), terms)

    @pytest.mark.parametrize(
        ("loss", "got"),
        [
            (lambda s, t, label: (s - t).square().mean(dim=(1, 2, 3)), r"\(2,\)"),
            (lambda s, t, label: 1.0, "float"),
            (lambda s, t, label: None, "NoneType"),
        ],
    )
    @pytest.mark.parametrize("layers", [(), ("head", "head"), (["head", "head"], ["head", "head"])])
    def test_no_scalar(self, loss, got, layers):
        with pytest.raises(ValueError, match=f"term `odd`: `loss` must return a scalar tensor, but got {got}; reduce"):
            distil(student_net(), [DistillationTerm(loss, 1.0, *layers, name="odd")])

    @pytest.mark.parametrize("bad", ["student", "teacher", "none of the logits"])
    @pytest.mark.parametrize("weight", [1.0, 0.0])
    def test_not_finite(self, bad, weight):
        student, network = student_net(), teacher_net()
        if bad != "none of the logits":
            (student if bad == "student" else network).head.bias.data.fill_(float("nan"))
        poor = DistillationTerm(lambda s, t, label: hint(s, t) / (s.sum() * 0), weight, name="poor")
        fine = DistillationTerm(lambda s, t, label: torch.zeros(()), name="fine")
        expected = "term `poor` = (nan|-?inf) must be finite .epoch 1, iteration 1.; not finite before it: "
        with pytest.raises(ValueError, match=expected + bad.replace("student", "the s").replace("teacher", "the t")):
            distil(student, [fine, poor], network)

    @pytest.mark.parametrize("weight", [None, "0.5", float("nan")])
    def test_schedule_that_gives_no_number(self, weight):
        with pytest.raises(ValueError, match=f"`weight` of term `kd` must be a finite number >= 0, but got {weight!r}"):
            distil(student_net(), [DistillationTerm(soften, lambda time: weight, name="kd")])

    def test_negative_schedule(self):
        with pytest.raises(ValueError, match="`weight` of term `soften` must be a finite number >= 0, but got -0.25"):
            distil(student_net(), [DistillationTerm(soften, lambda time: 0.5 - time)], epochs=1)

    def test_errors_of_other_kinds_keep_their_type(self):
        class Odd(ValueError):
            def __init__(self, code: int, text: str) -> None:
                super().__init__(text)

        def fail(student: torch.Tensor, teacher: torch.Tensor, label: Any) -> torch.Tensor:
            raise Odd(3, "odd")

        with pytest.raises(Odd, match="odd"):
            distil(student_net(), [DistillationTerm(fail)])


def test_term_on_frozen_layers_is_warned_of():
    student = student_net()
    for module in (student.encoder, student.norm):
        module.requires_grad_(False)
    term = DistillationTerm(hint, student_layer="norm", teacher_layer="norm")
    with pytest.warns(UserWarning, match="term `hint` gives the student no gradient: .* frozen or recomputed"):
        distil(student, [term], student_net(seed=1))
