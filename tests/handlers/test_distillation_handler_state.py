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

"""What must stay as it was: the teacher, the student's own state, the optimizer's form, the memory."""

from __future__ import annotations

import copy
import gc
import pickle
import weakref
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.engines import SupervisedEvaluator
from monai.engines.utils import IterationEvents
from monai.handlers import CheckpointSaver, ValidationHandler
from torch import nn
from torch.utils.data import DataLoader

from monai_kd.handlers import DistillationTerm
from monai_kd.networks import ChannelAdapter, Teacher, TeacherTeam
from tests.handlers.engine_case import hint, hooks_of, make_batches, make_data, same, soften, student_net, teacher_net
from tests.handlers.training import On, adam, distil, handler_of, loop_by_hand, make_trainer, segmentation_loss, sgd

pytestmark = pytest.mark.filterwarnings("ignore:.*drowns the supervised loss:UserWarning")


def feature_term(**kwargs: Any) -> DistillationTerm:
    return DistillationTerm(hint, 0.5, "norm", "norm", ChannelAdapter(4, 6), **kwargs)


class TestTeacherIsGuarded:
    def test_speaks_in_eval_mode_whatever_anybody_sets(self):
        network, said = teacher_net(), []
        reference, parent = copy.deepcopy(network).eval(), nn.ModuleDict({"teacher": network})
        handler = handler_of(DistillationTerm(soften), feature_term(), teacher=network)
        wake = On(Events.ITERATION_STARTED, lambda engine: parent.train())
        note = On(IterationEvents.FORWARD_COMPLETED, lambda engine: said.append(handler.knowledge.logits))
        make_trainer(student_net(), [wake, handler, note]).run()
        expected = [reference(batch["image"]) for batch in make_batches()] * 2
        assert len(said) == 8
        assert all(torch.equal(one, other) for one, other in zip(said, expected))
        assert same(network, reference)  # the running means of batch norm among them

    def test_gets_no_gradient_and_is_in_no_optimizer(self):
        handler, trainer = distil(student_net(), [DistillationTerm(soften), feature_term()])
        held = {id(parameter) for group in trainer.optimizer.param_groups for parameter in group["params"]}
        for parameter in handler.teacher.parameters():
            assert not parameter.requires_grad
            assert parameter.grad is None
            assert id(parameter) not in held

    def test_is_in_no_checkpoint(self, tmp_path):
        student = student_net()
        keys = list(student.state_dict())
        handler = handler_of(feature_term())
        trainer = make_trainer(student, [handler])
        CheckpointSaver(str(tmp_path), {"network": student, "distillation": handler}, save_final=True).attach(trainer)
        trainer.run()
        (path,) = tmp_path.glob("*.pt")
        saved = torch.load(path, weights_only=True)
        assert list(student.state_dict()) == list(saved["network"]) == keys
        assert list(saved["distillation"]["adapters"]) == ["hint.0.projection.weight"]

    def test_sees_its_own_image(self):
        data = [item | {"smooth": item["image"] / 2} for item in make_data()]
        network, said = teacher_net(), []
        handler = handler_of(DistillationTerm(soften), teacher=Teacher(network, image_key="smooth"))
        note = On(IterationEvents.FORWARD_COMPLETED, lambda engine: said.append(handler.knowledge.logits))
        make_trainer(student_net(), [handler, note], data=data, epochs=1).run()
        expected = [network(batch["image"] / 2) for batch in make_batches()]
        assert all(torch.equal(one, other) for one, other in zip(said, expected))

    def test_team_of_members_with_their_own_images_terms_and_layers(self):
        data = [item | {"smooth": item["image"] / 2} for item in make_data()]
        networks = [teacher_net(), teacher_net(channels=5)]
        team = TeacherTeam({"a": Teacher(networks[0]), "b": Teacher(networks[1], image_key="smooth")}, weights=[3, 1])
        adapter, student, by_hand = ChannelAdapter(4, 5), student_net(), student_net()
        other, second, maps = copy.deepcopy(adapter), copy.deepcopy(networks[1]).eval(), {}
        terms = [
            DistillationTerm(soften, 0.5, name="mean"),
            DistillationTerm(soften, 0.25, name="member", teacher="a"),
            DistillationTerm(hint, 0.125, "middle", "middle", adapter, teacher="b"),
        ]
        optimizer = sgd(student.parameters())
        distil(student, terms, team, data=data, optimizer=optimizer)

        second.middle.register_forward_hook(lambda module, inputs, output: maps.update(middle=output))
        images = iter([batch["image"] for batch in make_batches() * 2])

        def terms_by_hand(s, t, label, time):
            with torch.no_grad():
                mean = (0.75 * t["head"].softmax(1) + 0.25 * second(next(images) / 2).softmax(1)).log()
            logits = 0.5 * soften(s["head"], mean) + 0.25 * soften(s["head"], t["head"])
            return [logits, 0.125 * hint(other(s["middle"]), maps["middle"])]

        loop_by_hand(by_hand, networks[0], terms_by_hand, adapters=[other], make_optimizer=sgd)
        torch.testing.assert_close(student.state_dict(), by_hand.state_dict(), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(adapter.state_dict(), other.state_dict(), rtol=1e-5, atol=1e-6)


class TestStudentIsLeftAlone:
    def test_nothing_of_ours_stays_after_training(self):
        student, network, seen = student_net(), teacher_net(), []
        watch = On(Events.EPOCH_COMPLETED, lambda engine: seen.append((hooks_of(student), student.relu.inplace)))
        handler, _ = distil(student, [feature_term()], network, handlers=[watch])
        assert seen == [(0, True)] * 2  # nor between the steps
        assert (hooks_of(student), hooks_of(network)) == (0, 0)
        assert student.relu.inplace
        assert network.relu.inplace
        assert handler.knowledge is None

    @pytest.mark.parametrize("others", [False, True])
    def test_nothing_of_ours_stays_after_an_exception(self, others):
        def fail(engine: Any) -> None:
            raise KeyError("a fault of the pipeline")

        student, network, told = student_net(), teacher_net(), []
        handler = handler_of(feature_term(), teacher=network)
        trainer = make_trainer(student, [handler, On(IterationEvents.FORWARD_COMPLETED, fail)])
        if others:  # a handler of somebody else's decides, as it would without ours: this one swallows
            trainer.add_event_handler(Events.EXCEPTION_RAISED, lambda engine, error: told.append(error))
            trainer.run()
            assert isinstance(told[0], KeyError)
        else:
            with pytest.raises(KeyError, match="a fault of the pipeline"):
                trainer.run()
        assert (hooks_of(student), hooks_of(network)) == (0, 0)
        assert student.relu.inplace
        assert handler.knowledge is None

    def test_nothing_of_ours_stays_when_training_ends_early(self):
        student, stop = student_net(), On(Events.EPOCH_COMPLETED, lambda engine: engine.terminate())
        _, trainer = distil(student, [feature_term()], handlers=[stop])
        assert trainer.state.epoch == 1
        assert hooks_of(student) == 0

    def test_copies_and_pickles_while_it_is_listened_to(self):
        student, copies = student_net(), []

        def duplicate(engine: Any) -> None:
            copies.extend([copy.deepcopy(student), pickle.loads(pickle.dumps(student))])

        distil(student, [feature_term()], epochs=1, handlers=[On(Events.ITERATION_COMPLETED, duplicate)])
        assert len(copies) == 8
        image = torch.randn(1, 1, 16, 16)
        for other in copies[-2:]:
            assert same(student, other)
            assert torch.equal(other.eval()(image), student.eval()(image))

    def test_handler_copies_and_pickles(self):
        handler, _ = distil(student_net(), [DistillationTerm(soften), feature_term()])
        for other in (copy.deepcopy(handler), pickle.loads(pickle.dumps(handler))):
            students = student_net(), student_net()
            for student, each in zip(students, (copy.deepcopy(handler), other)):
                make_trainer(student, [each]).run()
            assert same(*students)
            assert other.adapters is not handler.adapters

    def test_validation_between_epochs_is_not_recorded(self):
        students, held, terms = [student_net(), student_net()], [], [feature_term(), feature_term()]
        terms[1].adapters.load_state_dict(terms[0].adapters.state_dict())
        handlers = [handler_of(term) for term in terms]
        evaluator = SupervisedEvaluator(torch.device("cpu"), DataLoader(make_data(4), 2), students[0], decollate=False)
        note = On(Events.EPOCH_COMPLETED, lambda engine: held.append(dict(handlers[0].pair.capture._outputs)))
        make_trainer(students[0], [handlers[0], ValidationHandler(1, evaluator), note]).run()
        make_trainer(students[1], [handlers[1]]).run()
        assert evaluator.state.iteration == 2
        assert held == [{}, {}]
        assert same(*students)

    def test_loss_may_call_the_student_again(self):
        student = student_net()

        def consistent(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
            return segmentation_loss(logits, label) + 0.1 * student(torch.ones(1, 1, 8, 8)).square().mean()

        _, trainer = distil(student, [feature_term()], loss_function=consistent)
        assert trainer.state.iteration == 8


class TestOptimizer:
    def test_scheduler_made_before_training_survives_the_adapters(self):
        student, term = student_net(), feature_term()
        optimizer, start = adam(student.parameters()), copy.deepcopy(term.adapters)
        scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
        step = On(Events.EPOCH_COMPLETED, lambda engine: scheduler.step())
        distil(student, [term], optimizer=optimizer, handlers=[step])
        (group,) = optimizer.param_groups
        assert group["lr"] == 1e-2 / 4
        assert group["params"][-1] is term.adapters[0].projection.weight
        assert not same(start, term.adapters)

    def test_adapters_given_to_the_optimizer_are_not_added_again(self):
        student = student_net()
        handler = handler_of(feature_term())
        groups = [{"params": student.parameters()}, {"params": handler.parameters(), "lr": 0.5}]
        optimizer = torch.optim.SGD(groups, lr=0.1)
        make_trainer(student, [handler], optimizer=optimizer).run()
        assert [len(group["params"]) for group in optimizer.param_groups] == [8, 1]

    def test_second_run_adds_nothing(self):
        _, trainer = distil(student_net(), [feature_term()])
        trainer.run()
        assert [len(group["params"]) for group in trainer.optimizer.param_groups] == [9]


class TestMemory:
    def test_maps_and_knowledge_are_released_after_each_step(self):
        references, alive = [], []

        def remember(student: torch.Tensor, teacher: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
            references.extend([weakref.ref(student), weakref.ref(teacher)])
            return hint(student, teacher)

        terms = [
            DistillationTerm(remember, 0.5, "norm", "norm", name="map"),
            DistillationTerm(remember, 0.5, name="logits"),
        ]
        count = On(Events.ITERATION_COMPLETED, lambda engine: alive.append(sum(r() is not None for r in references)))
        handler = handler_of(*terms, teacher=teacher_net(channels=4), monitor_interval=1)
        trainer = make_trainer(student_net(), [handler, count])
        gc.disable()  # what only the collector finds piles up on a GPU until it runs
        try:
            trainer.run()
        finally:
            gc.enable()
        assert len(references) == 32
        assert alive == [0] * 8


def test_adapters_join_the_group_that_learns():
    student, adapter = student_net(), ChannelAdapter(4, 8)
    optimizer = torch.optim.SGD(
        [{"params": student.encoder.parameters(), "lr": 0.0}, {"params": student.head.parameters(), "lr": 0.1}]
    )
    term = DistillationTerm(hint, student_layer="middle", teacher_layer="middle", adapter=adapter)
    handler_of(term, teacher=student_net(channels=8))._register_adapters(optimizer)
    assert [len(group["params"]) for group in optimizer.param_groups] == [2, 3]
