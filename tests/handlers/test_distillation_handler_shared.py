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

"""Several handlers: of one teacher, on one trainer or on trainers that run inside each other."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from ignite.engine import Events
from monai.engines.utils import IterationEvents

from monai_kd.handlers import DistillationTerm
from monai_kd.networks import ChannelAdapter, Teacher, TeacherTeam
from tests.handlers.engine_case import hint, hooks_of, same, seeded, soften, student_net, teacher_net
from tests.handlers.training import On, distil, handler_of, make_trainer

pytestmark = pytest.mark.filterwarnings("ignore:.*drowns the supervised loss:UserWarning")


def layer_term(layer: str, name: str, **kwargs: Any) -> DistillationTerm:
    return DistillationTerm(hint, 0.5, layer, layer, seeded(lambda: ChannelAdapter(4, 6)), name, **kwargs)


def teachers(shared: bool, team: bool) -> list[Any]:
    """Two, or one twice."""
    networks = [teacher_net(), teacher_net()]
    each = [TeacherTeam({"a": Teacher(net), "b": Teacher(copy.deepcopy(net))}) if team else net for net in networks]
    if not shared:
        return each
    return [each[0] if team else Teacher(networks[0])] * 2


@pytest.mark.parametrize("team", [False, True])
class TestOneTeacher:
    def test_of_two_handlers_on_one_trainer(self, team):
        students, member = [student_net(), student_net()], "b" if team else None
        for student, shared in zip(students, (False, True)):
            one, other = teachers(shared, team)
            second = handler_of(layer_term("middle", "second", teacher=member), DistillationTerm(soften), teacher=other)
            distil(student, [layer_term("norm", "first", teacher=member)], one, handlers=[second])
        assert same(*students)

    def test_of_two_trainers_one_inside_the_other(self, team):
        """The inner one trains a student of its own after each epoch, or in the midst of each step, of the outer."""
        member = "b" if team else None
        for event in (Events.EPOCH_COMPLETED, IterationEvents.FORWARD_COMPLETED):
            trained = []
            for shared in (False, True):
                outer, inner, (one, other) = student_net(), student_net(seed=3), teachers(shared, team)
                nested = make_trainer(
                    inner, [handler_of(layer_term("norm", "inner", teacher=member), teacher=other)], epochs=1
                )
                run = On(event, lambda engine, nested=nested: nested.run())
                distil(outer, [layer_term("middle", "outer", teacher=member)], one, handlers=[run])
                trained.append((outer, inner))
            for one, other in zip(*trained):
                assert same(one, other)
            assert not same(trained[0][1], student_net(seed=3))


class TestNothingStays:
    def test_until_the_last_handler_has_gone(self):
        network, inner, seen = teacher_net(), student_net(seed=3), []
        teacher = Teacher(network)
        nested = make_trainer(inner, [handler_of(layer_term("norm", "inner"), teacher=teacher)], epochs=1)
        look = On(Events.EPOCH_COMPLETED, lambda engine: seen.append((hooks_of(network), network.relu.inplace)))
        run = On(Events.EPOCH_COMPLETED, lambda engine: nested.run())
        distil(student_net(), [layer_term("middle", "outer")], teacher, handlers=[look, run, look])
        assert seen == [(0, True)] * 4  # outside of a forward pass, before and after the inner one has run
        assert (hooks_of(network), network.relu.inplace) == (0, True)

    def test_of_two_handlers_after_an_exception(self):
        def fail(engine: Any) -> None:
            raise KeyError("a fault of the pipeline")

        student, network = student_net(), teacher_net()
        teacher = Teacher(network)
        handlers = [handler_of(layer_term(layer, layer), teacher=teacher) for layer in ("norm", "middle")]
        trainer = make_trainer(student, [*handlers, On(IterationEvents.FORWARD_COMPLETED, fail)])
        with pytest.raises(KeyError, match="a fault of the pipeline"):
            trainer.run()
        assert (hooks_of(student), hooks_of(network)) == (0, 0)
        assert student.relu.inplace
        assert network.relu.inplace


class TestWeightOfTheSupervisedLoss:
    """With a second handler on the trainer, in either order."""

    @staticmethod
    def logged(*weights: float) -> list[dict[str, Any]]:
        one, two = (
            handler_of(DistillationTerm(soften, 0.5, name=name), supervised_weight=weight)
            for name, weight in zip(("one", "two"), weights)
        )
        outputs: list[dict[str, Any]] = []
        keep = On(IterationEvents.LOSS_COMPLETED, lambda engine: outputs.append(dict(engine.state.output)))
        make_trainer(student_net(), [one, two, keep]).run()
        return outputs

    @pytest.mark.parametrize("weights", [(0.5, 1.0), (1.0, 0.5)])
    def test_scales_the_labels_alone(self, weights):
        for output in self.logged(*weights):
            terms = output["loss_one_weighted"] + output["loss_two_weighted"]
            assert float(output["loss"].detach()) == pytest.approx(
                float(0.5 * output["loss_supervised"] + terms), rel=1e-6
            )

    def test_of_two_handlers_is_refused(self):
        with pytest.raises(ValueError, match="`supervised_weight` must be 1 in all but one handler of a trainer"):
            self.logged(0.5, 0.5)
