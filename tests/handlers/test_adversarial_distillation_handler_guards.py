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

"""What is refused, with which words, and that nothing was trained before."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ignite.engine import Engine
from monai.engines import SupervisedEvaluator
from torch import nn

from monai_kd.handlers import DistillationTerm
from monai_kd.networks import Teacher, TeacherTeam
from tests.handlers.adversarial_case import LAYERS, adversary, discriminator_net, teacher_nets
from tests.handlers.engine_case import make_data, same, soften, student_net, teacher_net
from tests.handlers.training import adam, handler_of, make_trainer


def refused(handler: Any, error: type[Exception], match: str, student: Any = None, **kwargs: Any) -> None:
    """A run that ends with the error, before a weight of student or discriminator has changed."""
    student = student_net() if student is None else student
    before = [p.detach().clone() for network in (student, handler.discriminator) for p in network.parameters()]
    with pytest.raises(error, match=match):
        make_trainer(student, [handler], **kwargs).run()
    after = [p for network in (student, handler.discriminator) for p in network.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert (handler.knowledge, handler.pair.capture) == (None, None)


class TestArguments:
    def test_teacher_of_another_type(self):
        with pytest.raises(TypeError, match="`teacher` must be a Teacher or TeacherTeam, but got Net; pass"):
            adversary([], teacher=teacher_net())

    def test_discriminator_of_another_type(self):
        with pytest.raises(TypeError, match="`discriminator` must be a module .* but got function and Adam"):
            adversary(teacher_nets(1), discriminator=soften, optimizer=adam(student_net().parameters()))
        with pytest.raises(TypeError, match="but got HierarchicalDiscriminator and generator"):
            adversary(teacher_nets(1), optimizer=student_net().parameters())

    def test_wrapped_discriminator(self):
        class Wrapped(nn.parallel.DistributedDataParallel):
            def __init__(self, module: nn.Module) -> None:
                nn.Module.__init__(self)
                self.module = module

        wrapped = Wrapped(discriminator_net())
        with pytest.raises(
            ValueError, match="`discriminator` must not be wrapped, but got DistributedDataParallel; .*"
        ):
            adversary(teacher_nets(1), discriminator=wrapped)

    def test_optimizer_of_other_weights(self):
        discriminator = discriminator_net()
        for parameters, match in (
            (
                list(student_net().parameters()),
                "all 5 and no others, but got 8, 0 of them the discriminator's; give it",
            ),
            (list(discriminator.parameters())[:2], "all 5 and no others, but got 2, 2 of them"),
            ([*discriminator.parameters(), nn.Parameter(torch.zeros(1))], "but got 6, 5 of them"),
        ):
            with pytest.raises(ValueError, match=f"`optimizer` must hold the discriminator's weights, .*{match}"):
                adversary(teacher_nets(1), discriminator=discriminator, optimizer=adam(parameters))

    @pytest.mark.parametrize(
        ("options", "match"),
        [
            ({"turns": "both together"}, "one of alternate, random, sequential, both, but got 'both together'"),
            ({"max_accuracy": 0}, r"`max_accuracy` must be in \(0, 1\] or None, but got 0"),
            ({"max_accuracy": 80}, r"`max_accuracy` must be in \(0, 1\] or None, but got 80"),
            ({"max_accuracy": "0.8"}, "`max_accuracy` must be a finite number >= 0, but got '0.8'; without quotes"),
            ({"weight": -0.2}, "`weight` must be a finite number >= 0, but got -0.2"),
            ({"weight": None}, "`weight` must be a finite number >= 0, but got None"),
            ({"monitor_interval": -1}, "`monitor_interval` must be a whole number >= 0, but got -1"),
            ({"teacher_layers": ["norm"]}, r"as many layers, but got \['norm', 'middle'\] and \['norm'\]"),
            ({"teacher_layers": {"a": LAYERS}}, r"must name the teachers \[None\], but got \['a'\]"),
        ],
    )
    def test_out_of_range(self, options, match):
        with pytest.raises(ValueError, match=match):
            adversary(teacher_nets(1), **options)

    def test_layers_of_an_unknown_member(self):
        team = TeacherTeam({"a": Teacher(teacher_net()), "b": Teacher(teacher_net())})
        with pytest.raises(ValueError, match=r"must name the teachers \['a', 'b'\], but got \['a', 'c'\]"):
            adversary([], teacher=team, teacher_layers={"a": LAYERS, "c": LAYERS})

    @pytest.mark.parametrize("layers", ["norm", None, [1], {"norm"}])
    def test_layers_that_are_no_list(self, layers):
        with pytest.raises(TypeError, match="`student_layers` must be a list of layers, but got"):
            adversary(teacher_nets(1), student_layers=layers)
        if layers is not None:
            with pytest.raises(TypeError, match="`teacher_layers` must be a list of layers, but got"):
                adversary(teacher_nets(1), teacher_layers=layers)


class TestEngines:
    def test_that_do_not_fire_the_events(self):
        handler = adversary(teacher_nets(1))
        with pytest.raises(ValueError, match="must fire MONAI's .* with `iteration_update`, which replaces the step"):
            make_trainer(student_net(), [handler], iteration_update=lambda engine, batch: {"loss": 0.0})
        with pytest.raises(ValueError, match="but got Engine which is no MONAI trainer"):
            handler.attach(Engine(lambda engine, batch: None))
        with pytest.raises(ValueError, match="but got SupervisedEvaluator which does not fire them"):
            SupervisedEvaluator(torch.device("cpu"), make_data(), student_net(), val_handlers=[handler])

    def test_attached_twice_is_attached_once(self):
        students = []
        for times in (1, 2):
            handler = adversary(teacher_nets(1))
            students.append(student_net())
            make_trainer(students[-1], [handler] * times).run()
        assert same(*students)


class TestStart:
    @pytest.mark.parametrize("own", [True, False])
    def test_unknown_layer(self, own):
        layers = {"student_layers": ["norm", "midle"]} if own else {"teacher_layers": ["norm", "midle"]}
        layers = layers | ({"teacher_layers": LAYERS} if own else {})
        match = "must be a module of Net, but got `midle`; the nearest names are `middle`"
        refused(adversary(teacher_nets(1), **layers), ValueError, match)

    def test_weights_in_common(self):
        for at, whose in ((0, "the student's"), (1, "the teacher's")):
            student, nets = student_net(), teacher_nets(1)
            handler = adversary(nets)
            (student, nets[0])[at].extra = handler.discriminator.head
            match = f"`discriminator` must have weights of its own, but got one that is also {whose}"
            refused(handler, ValueError, match, student)
        student, handler = student_net(), adversary(teacher_nets(1))
        optimizer = adam([*student.parameters(), *handler.discriminator.parameters()])
        refused(handler, ValueError, "one that is also in the student's `optimizer`", student, optimizer=optimizer)

    def test_student_that_is_the_teacher(self):
        student = teacher_net(channels=4)
        refused(adversary([student]), ValueError, "`teacher` must not share weights or buffers with", student)

    def test_names_that_the_log_uses(self):
        for name in ("adversarial", "discriminator"):
            other = handler_of(DistillationTerm(soften, name=name))
            with pytest.raises(ValueError, match=rf"must have different names, .* but got \['{name}'\] in both"):
                make_trainer(student_net(), [other, adversary(teacher_nets(1))]).run()
        with pytest.raises(ValueError, match=r"but got \['adversarial', 'discriminator'\] in both"):
            make_trainer(student_net(), [adversary(teacher_nets(1)), adversary(teacher_nets(1))]).run()


class TestFirstBatch:
    def test_map_of_another_shape(self):
        handler = adversary(teacher_nets(1), student_layers=["norm", "head"], teacher_layers=LAYERS)
        match = r"`discriminator` on the maps of the student: `features` must be maps of the shapes .* \(2, 2, 16, 16\)"
        refused(handler, ValueError, match)
        handler = adversary(teacher_nets(1), teacher_layers=["norm", "head"])
        refused(handler, ValueError, match.replace("student", "teacher"))

    def test_teacher_of_other_classes(self):
        handler = adversary(teacher_nets(1, classes=3))
        match = r"on the maps of the teacher: `segmentation` and `image` must be .* 3 channels .* got \(2, 3, 16, 16\)"
        refused(handler, ValueError, match)

    @pytest.mark.parametrize("turns", ["alternate", "sequential", "random"])
    def test_teacher_of_a_later_turn(self, turns):
        """It does not end a run in the middle."""
        nets = [*teacher_nets(1), teacher_net(channels=6)]
        match = r"on the maps of the teacher.*: `features` must be maps of the shapes .* \(2, 6, 16, 16\)"
        refused(adversary(nets, turns=turns), ValueError, match)

    def test_layer_that_is_no_tensor_or_not_called(self):
        student = student_net()
        student.idle = nn.Conv2d(1, 4, 1)
        handler = adversary(teacher_nets(1), student_layers=["norm", "idle"], teacher_layers=LAYERS)
        refused(handler, RuntimeError, "layer `idle` was not captured in this forward pass", student)

    def test_discriminator_that_returns_no_tensor(self):
        class Judge(nn.Conv2d):
            def forward(self, segmentation: torch.Tensor, image: torch.Tensor, features: list) -> Any:
                return [super().forward(image)]

        handler = adversary(teacher_nets(1), discriminator=Judge(1, 1, 1))
        refused(handler, TypeError, "`discriminator` must return a tensor, but got list")

    @pytest.mark.parametrize(("who", "term"), [("student", "adversarial"), ("teacher", "discriminator")])
    def test_not_finite(self, who, term):
        student, nets = student_net(), teacher_nets(1)
        (student if who == "student" else nets[0]).norm.weight.data.fill_(float("inf"))
        match = f"term `{term}` = nan must be finite .epoch 1, iteration 1.; not finite before it: the {who}"
        refused(adversary(nets), ValueError, match, student)

    def test_weight_that_is_no_number(self):
        handler = adversary(teacher_nets(1), weight=lambda epochs_done: None)
        refused(handler, ValueError, "`weight` must be a finite number >= 0, but got None")

    def test_student_that_writes_into_its_image(self):
        class Inplace(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.net = student_net()

            def forward(self, image: torch.Tensor) -> torch.Tensor:
                return self.net(image.mul_(2))

        layers = {"student_layers": [f"net.{layer}" for layer in LAYERS], "teacher_layers": LAYERS}
        refused(adversary(teacher_nets(1), **layers), ValueError, "must not write into its input", Inplace())
