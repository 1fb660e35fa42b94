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

"""Students and teachers in double and in half precision."""

from __future__ import annotations

import copy

import pytest
import torch

from monai_kd.handlers import DistillationTerm
from monai_kd.networks import ChannelAdapter
from tests.handlers.engine_case import hint, make_batches, make_data, same, soften, student_net, teacher_net
from tests.handlers.training import distil, handler_of, loop_by_hand, make_trainer

pytestmark = pytest.mark.filterwarnings("ignore:.*drowns the supervised loss:UserWarning")


def data_in(dtype: torch.dtype) -> list[dict[str, torch.Tensor]]:
    return [item | {"image": item["image"].to(dtype)} for item in make_data()]


def test_double_precision_is_that_of_the_loop_by_hand():
    """The adapter is made in single precision, and joins the optimizer before or as training starts."""
    made = ChannelAdapter(4, 6)
    other, by_hand = copy.deepcopy(made).double(), student_net().double()
    loop_by_hand(
        by_hand,
        teacher_net().double(),
        lambda s, t, *_: [0.5 * soften(s["head"], t["head"]), 0.25 * hint(other(s["norm"]), t["norm"])],
        adapters=[other],
        batches=[batch | {"image": batch["image"].double()} for batch in make_batches()],
    )
    for joined in (False, True):
        student, adapter = student_net().double(), copy.deepcopy(made)
        terms = [DistillationTerm(soften, 0.5), DistillationTerm(hint, 0.25, "norm", "norm", adapter)]
        handler = handler_of(*terms, teacher=teacher_net().double())
        parameters = [*student.parameters(), *(handler.parameters() if joined else ())]
        optimizer = torch.optim.Adam(parameters, lr=1e-2)
        make_trainer(student, [handler], data=data_in(torch.float64), optimizer=optimizer).run()
        assert same(student, by_hand)
        assert same(adapter, other)
        assert adapter.projection.weight.dtype == torch.float64


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("adapter_dtype", [torch.float32, torch.bfloat16])
def test_teacher_in_single_precision_and_student_in_another(dtype, adapter_dtype):
    adapter = ChannelAdapter(4, 6).to(adapter_dtype)
    start = copy.deepcopy(adapter)
    terms = [DistillationTerm(soften, 0.5), DistillationTerm(hint, 0.25, "norm", "norm", adapter)]
    student = student_net().to(dtype)
    _, trainer = distil(student, terms, data=data_in(dtype), epochs=1)
    assert {parameter.dtype for parameter in student.parameters()} == {dtype}
    computed_in = torch.float64 if dtype == torch.float64 else torch.float32
    assert adapter.projection.weight.dtype == computed_in
    assert trainer.state.output[0]["loss_hint"] > 0
    assert not torch.equal(adapter.projection.weight, start.projection.weight.to(computed_in))


def test_student_in_single_precision_and_teacher_in_another():
    reference, rounded, values = teacher_net().double().eval(), [], []
    _, trainer = distil(student_net(), [DistillationTerm(soften)], teacher_net().double(), epochs=1)
    assert trainer.state.output[0]["loss_soften"] > 0

    def note(student: torch.Tensor, teacher: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        values.append(teacher)
        return hint(student, teacher.float())

    distil(student_net(), [DistillationTerm(note)], teacher_net().double(), epochs=1)
    rounded = [reference(batch["image"].double()) for batch in make_batches()]
    assert all(torch.equal(value, expected) for value, expected in zip(values, rounded))
