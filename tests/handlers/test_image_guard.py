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

"""A student that spoils the image for the teacher."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.data import MetaTensor
from monai.engines import SupervisedTrainer
from torch import nn

from monai_kd.handlers import DistillationTerm
from monai_kd.handlers._image_guard import ImageGuard
from monai_kd.networks import Teacher, TeacherTeam
from tests.handlers.engine_case import Net, make_data, same, seeded, soften, student_net, teacher_net
from tests.handlers.training import On, adam, distil, handler_of, make_trainer, segmentation_loss

pytestmark = pytest.mark.filterwarnings("ignore:.*drowns the supervised loss:UserWarning")
REFUSAL = (
    r"`network` must not write into its input, but got a student that .*; begin its forward with `image = image.cl"
)


class Spoiler(Net):
    """Normalises its image in place."""

    def forward(self, image: torch.Tensor) -> Any:
        return super().forward(image.sub_(image.mean()))


class Careful(Net):
    """The same on a copy."""

    def forward(self, image: torch.Tensor) -> Any:
        return super().forward((image - image.mean()).relu_())


class TestTraining:
    @pytest.mark.usefixtures("fresh_compiler")
    @pytest.mark.filterwarnings("ignore:Will convert to PyTorch Tensor if using compile:UserWarning")
    @pytest.mark.parametrize("options", [{}, {"compile": True, "compile_kwargs": {"backend": "aot_eager"}}])
    @pytest.mark.parametrize("kind", [lambda image: image, MetaTensor])
    def test_is_refused_in_the_first_step(self, options, kind):
        student, data = seeded(Spoiler), [item | {"image": kind(item["image"])} for item in make_data()]
        with pytest.raises(ValueError, match=REFUSAL):
            distil(student, [DistillationTerm(soften)], data=data, **options)
        assert torch.equal(student.head.weight, seeded(Spoiler).head.weight)

    def test_of_a_copy_or_of_an_image_that_the_teacher_does_not_see_is_fine(self):
        distil(seeded(Careful), [DistillationTerm(soften)], epochs=1)
        data = [item | {"own": item["image"].clone()} for item in make_data()]
        teacher = Teacher(teacher_net(), image_key="own")
        distil(seeded(Spoiler), [DistillationTerm(soften)], teacher, data=data, epochs=1)

    def test_before_the_forward_pass_is_fine(self):
        """As a pipeline's own preparation of a batch may do."""

        def prepare(batch: Any, device: Any, non_blocking: bool, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor]:
            return batch["image"].mul_(2), batch["label"]

        _, trainer = distil(student_net(), [DistillationTerm(soften)], epochs=1, prepare_batch=prepare)
        assert trainer.state.iteration == 4

    def test_of_torchscript_is_not_noticed_and_trains(self):
        student, eager = torch.jit.script(nn.Sequential(nn.Conv2d(1, 2, 1))), nn.Sequential(nn.Conv2d(1, 2, 1))
        eager.load_state_dict(student.state_dict())
        for network in (student, eager):
            distil(network, [DistillationTerm(soften)])
        assert same(student, eager)

    def test_leaves_no_hook_and_a_network_that_copies_and_pickles(self):
        student = student_net()
        trainer = make_trainer(student, epochs=1)
        guard = ImageGuard(trainer.network)
        for other in (copy.deepcopy(student), pickle.loads(pickle.dumps(student))):
            assert same(student, other)
        guard.remove()
        assert not student._forward_pre_hooks
        distil(student, [DistillationTerm(soften)], epochs=1)
        assert not student._forward_pre_hooks


class TestGuard:
    def test_looks_between_arm_and_check_alone(self):
        network, image = seeded(Spoiler), torch.ones(1, 1, 16, 16)
        guard = ImageGuard(network)
        network(image)
        guard.check(image)
        guard.arm()
        network(image.clone())  # somebody else's
        guard.check(image)
        guard.arm()
        with torch.inference_mode():
            network(torch.ones(1, 1, 16, 16))
        network(image)
        with pytest.raises(ValueError, match=REFUSAL):
            guard.check(image)
        guard.check(image)

    def test_notices_writing_into_a_part(self):
        class Partly(nn.Conv2d):
            def forward(self, image: torch.Tensor) -> torch.Tensor:
                image[:, :, 0] = 0
                return super().forward(image)

        network, image = Partly(1, 2, 1), torch.ones(1, 1, 4, 4)
        guard = ImageGuard(network)
        guard.arm()
        network(image)
        with pytest.raises(ValueError, match=REFUSAL):
            guard.check(image)


class Writes(nn.Module):
    """Normalises its image in place, in one of the ways that torch knows."""

    def __init__(self, write: Any, classes: int = 2) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, classes, 1)
        self.write = write

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.write(image)
        return self.conv(image)


WAYS = [
    lambda image: image.sub_(image.mean()),
    lambda image: image[..., 0].zero_(),
    lambda image: image.data.mul_(2),  # which torch does not count
    lambda image: image.detach().view(-1).clamp_(0, 1),
    lambda image: image.numpy().fill(3),
    lambda image: image.mul_(2) if image.max() > 2 else image,  # in some batches
]


class TestTeacherThatWrites:
    @pytest.mark.parametrize("write", WAYS)
    @pytest.mark.parametrize("kind", [lambda image: image, MetaTensor])
    def test_leaves_the_image_of_the_data_set_and_of_others(self, write, kind):
        images = [kind(item["image"])[None].repeat(2, 1, 1, 1) for item in make_data(3)]
        data = [{"image": image, "label": torch.zeros(2, 1, 16, 16)} for image in images]
        before, seen = [torch.as_tensor(image).clone() for image in images], []
        look = On(Events.ITERATION_COMPLETED, lambda engine: seen.append(engine.state.output["image"].clone()))
        student = student_net()
        handlers = [handler_of(DistillationTerm(soften, name=f"kd{i}"), teacher=Writes(write)) for i in range(2)]
        trainer = SupervisedTrainer(
            torch.device("cpu"),
            1,
            data,
            student,
            adam(student.parameters()),
            segmentation_loss,
            train_handlers=[*handlers, look],
            decollate=False,
        )
        trainer.run()
        assert len(seen) == 3
        for expected, *others in zip(before, images, seen):
            assert all(torch.equal(torch.as_tensor(other), expected) for other in others)

    @pytest.mark.parametrize("write", WAYS)
    def test_sees_what_it_has_written(self, write):
        network, image = Writes(write), 3 * torch.randn(2, 1, 8, 8)
        expected = network(image.clone())
        before = image.clone()
        assert torch.equal(Teacher(network)(image).logits, expected)
        assert torch.equal(image, before)

    def test_in_a_team_leaves_the_image_of_the_next_member(self):
        network, image = nn.Conv2d(1, 2, 1), torch.randn(1, 1, 8, 8)
        team = TeacherTeam({"a": Teacher(Writes(WAYS[0])), "b": Teacher(network)})
        assert torch.equal(team(image).members["b"].logits, network(image))
