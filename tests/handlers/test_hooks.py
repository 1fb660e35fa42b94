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

"""What stays in a student between the steps, after the training and in its copies: nothing."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.engines.utils import IterationEvents
from monai.handlers import StatsHandler
from torch import nn

from monai_kd.handlers import DistillationTerm, loss_terms
from tests.handlers.adversarial_case import adversary, teacher_nets
from tests.handlers.engine_case import Net, hint, hooks_of, make_data, same, seeded, soften, student_net, teacher_net
from tests.handlers.training import On, handler_of, make_trainer

pytestmark = pytest.mark.filterwarnings("ignore:.*drowns the supervised loss:UserWarning")


class Fault(Exception):
    """An error of the pipeline."""


def fail(engine: Any) -> None:
    raise Fault


def interrupt(engine: Any) -> None:
    raise KeyboardInterrupt


def layer_term() -> DistillationTerm:
    return DistillationTerm(hint, 0.1, "norm", "norm", nn.Conv2d(4, 6, 1))


def untouched(network: Any) -> bool:
    """Whether no hook is left and the activation writes in place, as it was built."""
    before = sum(len(module._forward_pre_hooks) for module in network.modules())
    return hooks_of(network) == before == 0 and network.relu.inplace


EVENTS = [
    Events.ITERATION_STARTED,
    IterationEvents.FORWARD_COMPLETED,
    IterationEvents.LOSS_COMPLETED,
    IterationEvents.BACKWARD_COMPLETED,
    IterationEvents.MODEL_COMPLETED,
    Events.ITERATION_COMPLETED,
    Events.EPOCH_COMPLETED,
    Events.COMPLETED,
]


class TestAfterAnEnd:
    @pytest.mark.parametrize("event", EVENTS[:-1])
    @pytest.mark.parametrize("skip_completed", [False, True])
    def test_by_terminate(self, event, skip_completed):
        student, network = student_net(), teacher_net()
        stop = On(event, lambda engine: engine.terminate(skip_completed=skip_completed))
        make_trainer(student, [handler_of(layer_term(), teacher=network), stop]).run()
        assert untouched(student)
        assert untouched(network)

    @pytest.mark.parametrize("event", EVENTS)
    @pytest.mark.parametrize("act", [fail, interrupt])
    @pytest.mark.parametrize("first", [False, True])
    def test_by_an_error_of_a_handler_before_or_behind(self, event, act, first):
        student, network = student_net(), teacher_net()
        own = [handler_of(layer_term(), teacher=network)]
        others = [StatsHandler(output_transform=loss_terms), On(event, act)]
        trainer = make_trainer(student, [*others, *own] if first else [*own, *others])
        with pytest.raises((Fault, KeyboardInterrupt)):
            trainer.run()
        assert untouched(student)
        assert untouched(network)

    @pytest.mark.parametrize("error", [Fault, KeyboardInterrupt])
    @pytest.mark.parametrize("whose", ["student", "teacher"])
    def test_by_an_error_in_a_forward_pass(self, error, whose):
        class Fails(Net):
            def forward(self, image: torch.Tensor) -> Any:
                super().forward(image)
                raise error

        student = seeded(Fails) if whose == "student" else student_net()
        network = seeded(lambda: Fails(channels=6)) if whose == "teacher" else teacher_net()
        trainer = make_trainer(student, [StatsHandler(), handler_of(layer_term(), teacher=network)])
        with pytest.raises(error):
            trainer.run()
        assert untouched(student)
        assert untouched(network)

    def test_of_a_second_run(self):
        student, stops = student_net(), [1, 5]
        stop = On(
            Events.ITERATION_COMPLETED,
            lambda engine: engine.terminate(skip_completed=True) if engine.state.iteration in stops else None,
        )
        trainer = make_trainer(student, [handler_of(layer_term()), stop])
        for _ in stops:
            trainer.run()
            assert untouched(student)
        assert trainer.state.iteration == 5


class TestCopies:
    @pytest.mark.parametrize("event", [EVENTS[0], *EVENTS[3:]])
    @pytest.mark.parametrize("how", [copy.deepcopy, lambda network: pickle.loads(pickle.dumps(network))])
    def test_of_the_student_while_it_trains(self, event, how):
        student, copies = student_net(), []
        take = On(event, lambda engine: copies.append(how(student)))
        make_trainer(student, [handler_of(layer_term()), take], epochs=1).run()
        assert copies
        assert all(untouched(each) for each in copies)

    def test_with_an_adversarial_handler(self):
        student, copies = student_net(), []
        take = On(Events.ITERATION_COMPLETED, lambda engine: copies.append(copy.deepcopy(student)))
        make_trainer(student, [adversary(teacher_nets(1)), take], epochs=1).run()
        assert all(untouched(each) for each in [student, *copies])
        assert len(copies) == 4


def test_interrupted_training_goes_on_as_if_it_had_not():
    students, term = [student_net(), student_net()], layer_term()
    for student, stopped in zip(students, (False, True)):
        trainer = make_trainer(student, [handler_of(copy.deepcopy(term))], data=make_data(8))
        if stopped:
            pause = lambda engine: engine.interrupt() if engine.state.iteration == 3 else None  # noqa: E731
            trainer.add_event_handler(Events.ITERATION_COMPLETED, pause)
            trainer.run()
            assert untouched(student)
        trainer.run()
    assert same(*students)


def test_logits_alone_leave_nothing_either():
    student = student_net()
    trainer = make_trainer(student, [handler_of(DistillationTerm(soften)), On(Events.ITERATION_COMPLETED, fail)])
    with pytest.raises(Fault):
        trainer.run()
    assert untouched(student)
