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

"""Features of compiled networks."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from ignite.engine import Events

from monai_kd.handlers import DistillationTerm
from monai_kd.networks import ChannelAdapter, Teacher
from tests.handlers import engine_case
from tests.handlers.engine_case import hint, same, seeded, soften
from tests.handlers.training import On, distil, handler_of, make_trainer

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*drowns the supervised loss:UserWarning"),
    pytest.mark.usefixtures("fresh_compiler"),
]


class Net(engine_case.Net):
    """Without an in-place activation: switching that would compile the network anew, whatever becomes of hooks."""

    def __init__(self) -> None:
        super().__init__()
        self.relu.inplace = False


def teacher_net() -> Any:
    network = engine_case.teacher_net()
    network.relu.inplace = False
    return network


def make_terms(adapter: torch.nn.Module) -> list[DistillationTerm]:
    return [DistillationTerm(soften, 0.5), DistillationTerm(hint, 0.25, "norm", "norm", copy.deepcopy(adapter))]


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_student_is_equal_in_two_runs(backend):
    adapter, students = ChannelAdapter(4, 6), [seeded(Net), seeded(Net)]
    for student, options in zip(students, ({}, {"compile": True, "compile_kwargs": {"backend": backend}})):
        graphs = []
        watch = On(
            Events.ITERATION_COMPLETED, lambda engine, graphs=graphs: graphs.append(type(engine.network).__name__)
        )
        _, trainer = distil(student, make_terms(adapter), teacher_net(), handlers=[watch], **options)
        trainer.run()  # the hooks of the first run are gone, and what was compiled would not see those of the second
        assert set(graphs) == {"OptimizedModule" if options else "Net"}
        assert len(graphs) == 16
    assert same(*students)


def compiled(network: Any) -> Any:
    return torch.compile(network, backend="eager")


def compiled_in_place(network: Any) -> Any:
    network.compile(backend="eager")
    return network


@pytest.mark.parametrize("how", [compiled, compiled_in_place])
@pytest.mark.parametrize("given", [False, True])
def test_student_that_was_compiled_and_called_before(how, given):
    """Of the two ways to compile, and where the handler is given the student that the trainer's network wraps."""
    adapter, students, image = ChannelAdapter(4, 6), [seeded(Net), seeded(Net)], torch.randn(2, 1, 16, 16)
    distil(students[0], make_terms(adapter), teacher_net())
    network = how(students[1])
    network.train()(image)  # as training will call it
    students[1].load_state_dict(seeded(Net).state_dict())
    handler = handler_of(*make_terms(adapter), teacher=teacher_net(), student=students[1] if given else None)
    make_trainer(network, [handler]).run()
    assert same(*students)


def test_compiled_teacher_that_was_called_before():
    adapter, students, image = ChannelAdapter(4, 6), [seeded(Net), seeded(Net)], torch.randn(2, 1, 16, 16)
    distil(students[0], make_terms(adapter), teacher_net())
    teacher = Teacher(compiled(teacher_net()))
    teacher(image)
    distil(students[1], make_terms(adapter), teacher)
    assert same(*students)
    assert torch.equal(teacher(image).logits, teacher_net().eval()(image))
