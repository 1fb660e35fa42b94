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

"""The gradient ratios against gradients taken by hand, and each warning where it belongs and nowhere else."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from ignite.engine import Events
from torch import nn

from monai_kd.handlers import DistillationTerm
from monai_kd.handlers.distillation_monitor import DistillationMonitor
from monai_kd.losses import ImportanceMapLoss, KDLoss, RegionAffinityLoss
from monai_kd.networks import Knowledge
from tests.handlers.engine_case import hint, make_batches, make_data, soften, student_net, teacher_net
from tests.handlers.training import On, distil, segmentation_loss


def texts(found: list[warnings.WarningMessage]) -> list[str]:
    return [str(each.message) for each in found if "student" in str(each.message) or "term" in str(each.message)]


def gradient_norms(student: Any, terms: list[torch.Tensor], anchors: list[torch.Tensor]) -> list[float]:
    norms = []
    for term in terms:
        gradients = torch.autograd.grad(term, anchors, retain_graph=True, allow_unused=True)
        norms.append(torch.cat([each.flatten() for each in gradients if each is not None]).norm().item())
    return norms


def measured_ratios(terms, values, supervised, outputs):
    """The ratios of terms of weight 1."""
    monitor = DistillationMonitor()
    weights = dict.fromkeys(terms, 1.0)
    norms = monitor.norms(terms, values, supervised, Knowledge(outputs), weights)
    return monitor.ratios(terms, norms, weights)


class TestRatios:
    @pytest.mark.filterwarnings("ignore:.*drowns the supervised loss:UserWarning")
    def test_are_those_of_the_gradients_by_hand(self):
        student, network, adapter = student_net(), teacher_net(), nn.Conv2d(4, 6, 1)
        own, said, batch = copy.deepcopy(student).train(), copy.deepcopy(network).eval(), make_batches()[0]
        own.relu.inplace = said.relu.inplace = False
        terms = [
            DistillationTerm(soften, 0.5),
            DistillationTerm(hint, 0.25, ["norm", "middle"], ["norm", "middle"], [adapter, copy.deepcopy(adapter)]),
        ]
        _, trainer = distil(
            student,
            terms,
            network,
            supervised_weight=0.8,
            monitor_interval=1,
            data=make_data(2),
            epochs=1,
            optimizer=torch.optim.SGD(student.parameters(), lr=0.0),
        )
        maps: list[torch.Tensor] = []
        for layer in (own.norm, own.middle, said.norm, said.middle):
            layer.register_forward_hook(lambda module, inputs, output: maps.append(output))
        logits, target = own(batch["image"]), said(batch["image"]).detach()
        supervised = 0.8 * segmentation_loss(logits, batch["label"])
        first, reference = gradient_norms(own, [0.5 * soften(logits, target), supervised], [logits])
        value = 0.25 * sum(hint(adapter(one), other.detach()) for one, other in zip(maps[:2], maps[2:]))
        second, deep_reference = gradient_norms(own, [value, supervised], maps[:2])
        output = trainer.state.output[0]
        assert output["gradient_ratio_soften"] == pytest.approx(first / reference, rel=1e-5)
        assert output["gradient_ratio_hint"] == pytest.approx(second / deep_reference, rel=1e-5)

    @pytest.mark.filterwarnings("ignore:.*drowns the supervised loss:UserWarning")
    def test_are_there_every_n_iterations(self):
        there = []
        note = On(Events.ITERATION_COMPLETED, lambda e: there.append("gradient_ratio_soften" in e.state.output[0]))
        distil(student_net(), [DistillationTerm(soften)], monitor_interval=3, handlers=[note])
        assert there == [True, False, False, True, False, False, True, False]

    def test_of_all_outputs(self):
        fine, coarse = (torch.randn(1, 2, size, size, requires_grad=True) for size in (8, 4))
        term = DistillationTerm(hint, outputs="all")
        value = fine.square().mean() + 3 * coarse.square().mean()
        supervised = fine.square().sum()
        ratios = measured_ratios({"t": term}, {"t": value}, supervised, [fine, coarse])
        expected, reference = gradient_norms(None, [value, supervised], [fine, coarse])
        assert ratios["t"] == pytest.approx(expected / reference, rel=1e-5)

    def test_do_not_underflow_in_half_precision(self):
        logits, target = torch.randn(1, 2, 384, 384), torch.randn(1, 2, 384, 384)
        label = torch.randint(0, 2, (1, 1, 384, 384))
        found = []
        for dtype in (torch.float32, torch.float16):
            own = logits.to(dtype).requires_grad_()
            value, supervised = 1e-3 * hint(own.float(), target), segmentation_loss(own, label)
            terms = {"t": DistillationTerm(hint)}
            found.append(measured_ratios(terms, {"t": value}, supervised, [own])["t"])
        assert found[1] == pytest.approx(found[0], rel=0.01)

    def test_weight_0_is_0(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            _, trainer = distil(student_net(), [DistillationTerm(soften, 0.0)], monitor_interval=1)
        assert trainer.state.output[0]["gradient_ratio_soften"] == 0.0


class TestWarnings:
    def test_term_that_drowns_the_supervised_loss(self):
        with pytest.warns(UserWarning, match="drowns") as found:
            distil(student_net(), [DistillationTerm(soften, 0.001), DistillationTerm(hint, 1e4)], monitor_interval=1)
        drowned = [text for text in texts(found) if "drowns" in text]
        assert len(drowned) == 1  # once a run, not in each iteration
        assert drowned[0].startswith("term `hint` drowns the supervised loss: its gradient is ")
        assert drowned[0].endswith(
            "times as large; take `weight='auto'`, lower its weight or let it ramp up (`LinearSchedule`)."
        )

    @pytest.mark.parametrize(("ratio", "warned"), [(1e9, False), (1e-9, True)])
    def test_above_its_ratio_alone(self, ratio, warned):
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            distil(student_net(), [DistillationTerm(soften, 0.5)], drown_ratio=ratio)
        assert bool(texts(found)) is warned

    def test_distillation_alone_drowns_nothing(self):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            _, trainer = distil(student_net(), [DistillationTerm(soften)], supervised_weight=0.0, monitor_interval=1)
        assert "gradient_ratio_soften" not in trainer.state.output[0]

    @pytest.mark.parametrize(
        "loss",
        [
            lambda s, t, label: hint(s.detach(), t),  # no gradient at all
            lambda s, t, label: s.round().clamp(-1, 1).square().mean() + 1,  # one that is 0
        ],
    )
    @pytest.mark.parametrize("supervised_weight", [1.0, 0.0])
    def test_term_without_a_gradient(self, loss, supervised_weight):
        with pytest.warns(UserWarning, match="term `idle` is .* but gives the student no gradient"):
            distil(student_net(), [DistillationTerm(loss, name="idle")], supervised_weight=supervised_weight)

    def test_term_whose_gradient_ends_at_the_adapter(self):
        class Cut(nn.Conv2d):
            def forward(self, feature: torch.Tensor) -> torch.Tensor:
                return super().forward(feature.detach())

        with pytest.warns(UserWarning, match="term `hint` is .* but gives the student no gradient"):
            distil(student_net(), [DistillationTerm(hint, 1.0, "norm", "norm", Cut(4, 6, 1))])


class TestSingleClass:
    """A student that predicts one class in a whole epoch."""

    @staticmethod
    def run(weight: Any = 0.01, data: Any = None, classes: int = 2, only: int = 0, label: Any = None) -> list[str]:
        student = student_net(classes=classes)
        student.head.bias.data.zero_()
        student.head.bias.data[only] = 100.0 if classes > 1 else -100.0
        student.requires_grad_(False)
        student.head.weight.requires_grad_()
        data = make_data(classes=max(2, classes)) if data is None else data
        data = data if label is None else [item | {"label": label(item["label"])} for item in data]
        loss = segmentation_loss if classes > 1 and label is None else lambda logits, label: logits.square().mean()
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            terms = [DistillationTerm(soften, weight, name="kd"), DistillationTerm(hint, 0.0, name="idle")]
            distil(student, terms, teacher_net(classes=classes), data=data, monitor_interval=0, loss_function=loss)
        return texts(found)

    @pytest.mark.parametrize(("classes", "only"), [(2, 0), (3, 1), (1, 0)])
    def test_is_warned_of_each_epoch_with_the_terms_and_the_remedy(self, classes, only):
        found = self.run(classes=classes, only=only)
        assert [text.split(",")[0] for text in found] == [
            f"the student predicted class {only} alone in all of epoch {epoch}" for epoch in (1, 2)
        ]
        assert (
            "the terms (kd) drown the supervised loss: take `weight='auto'`, lower its weight or let it ramp up (`Lin"
            in found[0]
        )

    def test_of_one_hot_labels(self):
        one_hot = self.run(label=lambda label: torch.cat([1 - label, label]))
        assert len(one_hot) == 2

    def test_is_right_where_the_labels_hold_one_class(self):
        assert self.run(label=torch.zeros_like) == []
        assert self.run(label=lambda label: torch.cat([torch.ones_like(label), torch.zeros_like(label)])) == []

    def test_of_one_batch_is_no_matter(self):
        data = make_data()
        data[2]["image"] = data[2]["image"] * 0
        student = student_net()
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            distil(student, [DistillationTerm(soften, 0.01)], data=data, monitor_interval=0)
        assert texts(found) == []

    def test_is_not_the_fault_of_terms_of_weight_0(self):
        assert self.run(weight=0.0) == []
        assert len(self.run(weight=lambda time: 0.0 if time < 1 else 0.01)) == 1


class TestRemedy:
    """Each piece of advice is one that the term's loss can follow, and that helps."""

    TERMS = {
        "cool": DistillationTerm(RegionAffinityLoss(num_classes=2)),
        "kd": DistillationTerm(KDLoss()),
        "map": DistillationTerm(ImportanceMapLoss()),
        "even": DistillationTerm(KDLoss(balance="class")),
    }

    @pytest.mark.parametrize(
        ("name", "more"),
        [
            ("cool", ""),
            ("kd", ", or lower the temperature of `kd`"),
            ("map", ""),
            ("even", ", or lower the te.*`even`"),
        ],
    )
    def test_of_a_term_that_drowns(self, name, more):
        student = Knowledge([torch.randn(1, 2, 4, 4, requires_grad=True)])
        value = 100 * student.logits.square().mean()
        with pytest.warns(
            UserWarning,
            match=r"take `weight='auto'`, lower its weight or let it ramp up \(`LinearSchedule`\)" + more + r"\.$",
        ):
            measured_ratios({name: self.TERMS[name]}, {name: value}, value / 100, student.outputs)

    def test_of_terms_in_a_collapse(self):
        monitor = DistillationMonitor()
        monitor.see(torch.tensor([1.0, 0.0]).reshape(1, 2, 1, 1), torch.tensor([0, 1]).reshape(1, 1, 1, 2))
        with pytest.warns(UserWarning, match="the student predicted class 0 alone in all of epoch 3") as found:
            monitor.end_epoch(3, self.TERMS)
        assert texts(found)[0].endswith(
            "the terms (cool, kd, map, even) drown the supervised loss: take `weight='auto'`, "
            "lower their weights or let them ramp up "
            "(`LinearSchedule`), or lower the temperature of `kd`, `even`, or average `kd`, `map` per class "
            "(`balance='class'`)."
        )

    @staticmethod
    def gradient(loss: Any, seed: int, classes: int) -> float:
        draw = torch.Generator().manual_seed(seed)
        student, teacher = (5 * torch.randn(1, classes, 16, 16, generator=draw) for _ in range(2))
        label = (torch.rand(1, 1, 16, 16, generator=draw) < 0.02).long()
        (gradient,) = torch.autograd.grad(loss(student.requires_grad_(), teacher, label), student)
        return gradient.norm().item()

    @pytest.mark.parametrize("classes", [2, 3, 8])
    def test_lower_temperature_pulls_less(self, classes):
        for seed in range(5):
            pulls = [self.gradient(KDLoss(temperature=t), seed, classes) for t in (0.5, 1.0, 2.0, 4.0, 8.0)]
            assert pulls == sorted(pulls)

    def test_balance_is_no_remedy_for_a_gradient_too_large(self):
        assert self.gradient(KDLoss(balance="class"), 0, 2) > 2 * self.gradient(KDLoss(), 0, 2)


class TestArguments:
    @pytest.mark.parametrize("interval", [-1, 0.5, None, "50", float("inf"), float("nan")])
    def test_interval(self, interval):
        with pytest.raises(ValueError, match=f"`monitor_interval` must be a whole number >= 0, but got {interval!r}"):
            DistillationMonitor(interval)

    @pytest.mark.parametrize("ratio", [0, -1.0, float("nan"), None, "2"])
    def test_drown_ratio(self, ratio):
        with pytest.raises(ValueError, match=f"`drown_ratio` must be positive, but got {ratio!r}"):
            DistillationMonitor(drown_ratio=ratio)


class TestTeacherOfOneClass:
    LABEL = torch.tensor([0, 1]).reshape(1, 1, 1, 2)
    BOTH = torch.tensor([[1.0, 0.0], [0.0, 1.0]]).reshape(1, 2, 1, 2)
    ONE = torch.tensor([[1.0, 1.0], [0.0, 0.0]]).reshape(1, 2, 1, 2)

    def test_is_warned_of_once(self, recwarn):
        monitor = DistillationMonitor()
        for epoch in (1, 2):
            monitor.see(self.BOTH, self.LABEL, self.ONE)
            monitor.end_epoch(epoch, {})
        said = [str(each.message) for each in recwarn]
        assert len(said) == 1
        assert said[0].startswith("the teacher predicted class 0 alone in all of epoch 1, while the labels hold others")

    def test_is_none_that_predicts_another_class_anywhere(self, recwarn):
        monitor = DistillationMonitor()
        for taught in (self.ONE, self.BOTH):
            monitor.see(self.BOTH, self.LABEL, taught)
        monitor.end_epoch(1, {})
        monitor.start()
        monitor.see(self.BOTH, torch.zeros_like(self.LABEL), self.ONE)  # there is one class alone
        monitor.end_epoch(1, {})
        assert len(recwarn) == 0
