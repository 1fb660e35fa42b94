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

"""A trainer's own loss that is not finite."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from ignite.engine import Events

from monai_kd.handlers import DistillationTerm, FiniteLossHandler
from tests.handlers.adversarial_case import adversary, teacher_nets
from tests.handlers.engine_case import same, soften, student_net
from tests.handlers.training import handler_of, make_trainer, segmentation_loss

pytestmark = pytest.mark.filterwarnings("ignore:.*drowns the supervised loss:UserWarning")


def spoilt(value: float, after: int = 0) -> Callable[..., torch.Tensor]:
    """A loss that is the value from some call on."""
    calls = iter(range(100))

    def loss(logits: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        own = segmentation_loss(logits, label)
        return own if next(calls) < after else own * value

    return loss


def kd(**options: Any) -> Any:
    return handler_of(DistillationTerm(soften, name="kd"), **options)


REFUSALS = {
    "distillation": (kd, r"^the supervised loss = (nan|inf) must be finite .*not finite before it: none of the logits"),
    "weight 0": (lambda: kd(supervised_weight=0.0), r"^the supervised loss = (nan|inf) must be finite"),
    "no term": (handler_of, r"^the supervised loss = (nan|inf) must be finite"),
    "adversarial": (lambda: adversary(teacher_nets(1)), r"^the supervised loss = (nan|inf) must be finite"),
    "alone": (
        FiniteLossHandler,
        r"`loss_function` must give a finite loss, but got (nan|inf) .epoch 1, iteration 3",
    ),
}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("case", REFUSALS)
@pytest.mark.parametrize("accumulation", [1, 4])
def test_stops_before_the_weights_change(value, case, accumulation):
    make, message = REFUSALS[case]
    student, spoilt_one = student_net(), student_net()
    options = {"epochs": 1, "accumulation_steps": accumulation}
    trainer = make_trainer(spoilt_one, [make()], loss_function=spoilt(value, after=2), **options)
    with pytest.raises(ValueError, match=message):
        trainer.run()
    assert trainer.state.iteration == 3
    until = make_trainer(student, [make()], **options)
    until.add_event_handler(Events.ITERATION_COMPLETED(once=2), lambda engine: engine.terminate())
    until.run()
    assert all(torch.equal(one, other) for one, other in zip(student.parameters(), spoilt_one.parameters()))
    assert all(parameter.isfinite().all() for parameter in spoilt_one.parameters())


def test_in_mixed_precision(emulated_amp):
    student = student_net()
    with pytest.raises(ValueError, match="the supervised loss = nan must be finite"):
        make_trainer(student, [kd()], loss_function=spoilt(float("nan")), amp=True).run()
    assert all(torch.equal(*pair) for pair in zip(student.parameters(), student_net().parameters()))


def test_is_named_beside_a_term():
    student = student_net()
    student.head.bias.data.fill_(float("nan"))
    expected = "^the supervised loss = nan and term `kd` = nan must be finite .*; not finite before it: the student"
    with pytest.raises(ValueError, match=expected):
        make_trainer(student, [kd()]).run()


def test_handler_changes_nothing_of_a_finite_loss():
    students = [student_net(), student_net()]
    handler = FiniteLossHandler()
    trainer = make_trainer(students[0], [handler, handler])
    trainer.run()
    make_trainer(students[1]).run()
    assert same(*students)
