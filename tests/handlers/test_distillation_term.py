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

"""One term, without a trainer."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from monai.data import MetaTensor
from torch import nn

from monai_kd.handlers import DistillationTerm, LinearSchedule
from monai_kd.losses import KDLoss
from monai_kd.networks import ChannelAdapter, Knowledge
from tests.handlers.engine_case import hint, soften


def knowledge(*sizes: int, channels: int = 2, **features: torch.Tensor) -> Knowledge:
    return Knowledge([torch.randn(2, channels, size, size, requires_grad=True) for size in sizes or (8,)], features)


class TestValue:
    def test_logits(self):
        student, teacher, label = knowledge(), knowledge(), torch.zeros(2, 1, 8, 8)
        seen = []

        def loss(own: torch.Tensor, target: torch.Tensor, given: Any) -> torch.Tensor:
            seen.extend([own is student.logits, target.requires_grad, given is label])
            return soften(own, target)

        assert torch.equal(DistillationTerm(loss)(student, teacher, label), soften(student.logits, teacher.logits))
        assert seen == [True, False, True]

    def test_layers_are_summed(self):
        maps = [torch.randn(2, 3, 8, 8) for _ in range(4)]
        student, teacher = knowledge(a=maps[0], b=maps[1]), knowledge(c=maps[2], d=maps[3])
        term = DistillationTerm(hint, 5.0, ["a", "b"], ["c", "d"])
        torch.testing.assert_close(term(student, teacher, None), hint(maps[0], maps[2]) + hint(maps[1], maps[3]))

    def test_each_pair_has_its_adapter(self):
        maps = [torch.randn(2, 3, 8, 8), torch.randn(2, 4, 8, 8), torch.randn(2, 5, 4, 4)]
        adapters = [ChannelAdapter(3, 4), ChannelAdapter(3, 5, scale_factor=0.5)]
        term = DistillationTerm(hint, 1.0, ["a", "a"], ["b", "c"], adapters)
        value = term(knowledge(a=maps[0]), knowledge(b=maps[1], c=maps[2]), None)
        torch.testing.assert_close(value, hint(adapters[0](maps[0]), maps[1]) + hint(adapters[1](maps[0]), maps[2]))
        assert list(term.adapters) == adapters

    def test_a_member_of_a_team(self):
        student, teachers = knowledge(), {"a": knowledge(), "b": knowledge()}
        value = DistillationTerm(hint, teacher="b")(
            student, Knowledge([torch.zeros(2, 2, 8, 8)], members=teachers), None
        )
        assert torch.equal(value, hint(student.logits, teachers["b"].logits))

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_is_single_precision_under_autocast(self, dtype):
        student, teacher = (
            Knowledge([torch.randn(1, 2, 8, 8).to(dtype)], {"a": torch.randn(1, 2, 8, 8).to(dtype)}) for _ in range(2)
        )
        seen = []

        def loss(own: torch.Tensor, target: torch.Tensor, label: Any) -> torch.Tensor:
            seen.extend([own.dtype, target.dtype, (own.flatten(1) @ target.flatten(1).T).dtype])
            return hint(own, target)

        with torch.autocast("cpu", torch.bfloat16):
            for layers in ((), ("a", "a", ChannelAdapter(2, 2))):
                assert DistillationTerm(loss, 1.0, *layers)(student, teacher, None).dtype == torch.float32
        assert set(seen) == {torch.float32}

    def test_double_precision_is_kept(self):
        both = [Knowledge([torch.randn(1, 2, 8, 8, dtype=torch.float64)]) for _ in range(2)]
        assert DistillationTerm(hint)(*both, None).dtype == torch.float64

    def test_loss_gets_no_metatensor(self):
        kinds = []

        def loss(own: torch.Tensor, target: torch.Tensor, label: Any) -> torch.Tensor:
            kinds.extend([type(own), type(target)])
            return hint(own, target)

        both = [Knowledge([MetaTensor(torch.randn(1, 2, 8, 8)), MetaTensor(torch.randn(1, 2, 4, 4))]) for _ in range(2)]
        DistillationTerm(loss)(*both, None)
        DistillationTerm(loss, outputs="all")(both[0], Knowledge(both[1].outputs[:1]), None)
        assert kinds == [torch.Tensor] * 6

    def test_all_outputs_are_resized_to_the_teachers(self):
        student, teacher = knowledge(8, 4), knowledge(8)
        resized = nn.functional.interpolate(student.outputs[1], (8, 8), mode="bilinear")
        value = DistillationTerm(hint, outputs="all")(student, teacher, None)
        torch.testing.assert_close(value, hint(student.logits, teacher.logits) + hint(resized, teacher.logits))
        assert DistillationTerm(hint, outputs="all").anchors(student) == student.outputs
        assert DistillationTerm(hint).anchors(student) == student.outputs[:1]

    def test_all_outputs_in_three_dimensions(self):
        student = Knowledge([torch.zeros(1, 2, 4, 4, 4), torch.ones(1, 2, 2, 2, 2)])
        value = DistillationTerm(hint, outputs="all")(student, Knowledge([torch.zeros(1, 2, 4, 4, 4)]), None)
        assert value.item() == pytest.approx(1.0)

    def test_logits_are_not_broadcast(self):
        binary, several = Knowledge([torch.zeros(2, 1, 8, 8)]), knowledge(channels=3)
        with pytest.raises(
            ValueError, match=r"`student` must give logits .* \(2, 1, 8, 8\) and \(2, 3, 8, 8\); both must"
        ):
            DistillationTerm(hint)(binary, several, None)
        value = DistillationTerm(lambda s, t, label: hint(s, t[:, 1:2]), adapter=nn.Identity())(binary, several, None)
        assert value == hint(binary.logits, several.logits[:, 1:2])


class TestSchedules:
    def test_weight(self):
        assert DistillationTerm(hint, 0.5).weight_at(3.0) == 0.5
        assert DistillationTerm(hint, LinearSchedule(0, 1, 4)).weight_at(1.0) == 0.25
        assert DistillationTerm(hint, lambda time: time**2).weight_at(3.0) == 9.0

    @pytest.mark.parametrize(("temperature", "expected"), [(2.0, 2.0), (lambda time: 1 + time, 2.5), (None, 7.0)])
    def test_temperature(self, temperature, expected):
        loss = nn.Identity()
        loss.temperature = 7.0
        term = DistillationTerm(loss, temperature=temperature)
        term.set_temperature(1.5)
        assert term.loss.temperature == expected


class TestNames:
    @pytest.mark.parametrize(
        ("loss", "name"),
        [
            (type("KDLoss", (), {})(), "kd"),
            (type("ImportanceMapLoss", (), {})(), "importance_map"),
            (type("Loss", (), {})(), "loss"),
            (nn.MSELoss(), "mse"),
            (hint, "hint"),
        ],
    )
    def test_from_the_loss(self, loss, name):
        assert DistillationTerm(loss).name == name
        assert DistillationTerm(loss, name="own").name == "own"


class TestArguments:
    @pytest.mark.parametrize("weight", [-0.1, float("nan"), float("inf"), None, "0.5", "1e-3"])
    def test_weight(self, weight):
        with pytest.raises(ValueError, match=f"`weight` must be a finite number >= 0, but got {weight!r}"):
            DistillationTerm(hint, weight)
        term = DistillationTerm(hint, lambda time: weight)
        with pytest.raises(
            ValueError, match=f"`weight` of term `hint` must be a finite number >= 0, but got {weight!r}"
        ):
            term.weight_at(0.0)

    @pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), "4"])
    def test_temperature(self, temperature):
        with pytest.raises(ValueError, match=f"`temperature` must be a finite number > 0, but got {temperature!r}"):
            DistillationTerm(KDLoss(), temperature=temperature)
        term = DistillationTerm(KDLoss(), temperature=lambda time: temperature)
        with pytest.raises(
            ValueError, match=f"`temperature` of term `kd` must be a finite number > 0, but got {temperature!r}"
        ):
            term.set_temperature(0.0)
        with pytest.raises(ValueError, match="`temperature` of term `kd` must be .* but got None"):
            DistillationTerm(KDLoss(), temperature=lambda time: None).set_temperature(0.0)

    @pytest.mark.parametrize("name", ["a.b", "", ".", 3])
    def test_name(self, name):
        for adapter in (None, nn.Identity()):
            with pytest.raises(ValueError, match=f"`name` must be a text without dots, .* but got {name!r}"):
                DistillationTerm(hint, adapter=adapter, name=name)

    @pytest.mark.parametrize("name", ["values", "type", "training"])
    def test_name_of_an_attribute(self, name):
        """Which cannot hold an adapter, and is as good as another without one."""
        with pytest.raises(
            ValueError, match=f"with an adapter none that `torch.nn.ModuleDict` has .* but got '{name}'"
        ):
            DistillationTerm(hint, adapter=nn.Identity(), name=name)
        assert DistillationTerm(hint, name=name).name == name

    @pytest.mark.parametrize("adapter", [nn.Identity, "identity", lambda feature: feature, [nn.Identity]])
    def test_adapter_that_is_no_module(self, adapter):
        with pytest.raises(TypeError, match="`adapter` must be a module or a sequence of modules, but got "):
            DistillationTerm(hint, adapter=adapter)

    def test_outputs(self):
        with pytest.raises(ValueError, match="`outputs` must be 'first' or 'all', but got 'last'"):
            DistillationTerm(hint, outputs="last")

    def test_temperature_of_a_loss_without_one(self):
        with pytest.raises(ValueError, match="`temperature` must be None for a loss without one, but got function"):
            DistillationTerm(hint, temperature=4.0)

    @pytest.mark.parametrize(("student", "teacher"), [("a", None), (None, "a"), (["a", "b"], "a")])
    def test_layers_that_do_not_pair_up(self, student, teacher):
        with pytest.raises(ValueError, match="`student_layer` and `teacher_layer` must name as many layers, but got"):
            DistillationTerm(hint, 1.0, student, teacher)

    @pytest.mark.parametrize(
        ("layers", "count", "options", "pairs"),
        [(["a", "b"], 1, {}, 2), (["a"], 2, {}, 1), (None, 2, {}, 1), (None, 1, {"outputs": "all"}, 0)],
    )
    def test_adapters_that_do_not_pair_up(self, layers, count, options, pairs):
        adapters = [nn.Identity() for _ in range(count)]
        with pytest.raises(
            ValueError, match=f"`adapter` must be one module for each of {pairs} pairs, but got {count}"
        ):
            DistillationTerm(hint, 1.0, layers, layers, adapters, **options)

    @pytest.mark.parametrize(("value", "got"), [(torch.zeros(2), r"\(2,\)"), (0.0, "float"), (None, "NoneType")])
    def test_value_that_is_no_scalar(self, value, got):
        with pytest.raises(
            ValueError, match=f"`loss` must return a scalar tensor, but got {got}; reduce it with a mean"
        ):
            DistillationTerm(lambda s, t, label: value)(knowledge(), knowledge(), None)


def test_terms_that_share_a_loss_keep_their_temperatures():
    shared = KDLoss(temperature=4.0)
    one, other = DistillationTerm(shared, temperature=1.0), DistillationTerm(shared)
    one.set_temperature(0.0)
    assert (one.loss.temperature, other.loss.temperature) == (1.0, 4.0)


def test_loss_with_trainable_weights_is_refused():
    loss = torch.nn.Bilinear(2, 2, 1)
    with pytest.raises(ValueError, match=r"`loss` must have no trainable weights, but got Bilinear with \['weight'"):
        DistillationTerm(loss)
    DistillationTerm(loss.requires_grad_(False))
