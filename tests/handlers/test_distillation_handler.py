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

"""The handler against training without it and against the loop by hand, bit for bit."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from monai.data import MetaTensor
from monai.engines.utils import IterationEvents
from monai.networks.nets import DynUNet
from torch import nn
from torch.nn import functional as F

from monai_kd.handlers import DistillationTerm, LinearSchedule
from monai_kd.networks import ChannelAdapter
from tests.handlers.engine_case import hint, make_batches, make_data, same, seeded, soften, student_net, teacher_net
from tests.handlers.training import On, distil, handler_of, loop_by_hand, make_trainer, segmentation_loss

pytestmark = pytest.mark.filterwarnings("ignore:.*drowns the supervised loss:UserWarning")


def three_terms(adapters: list[nn.Module]) -> list[DistillationTerm]:
    """Logits, one layer, and two layers of other widths: the last with adapters."""
    return [
        DistillationTerm(soften, weight=0.7),
        DistillationTerm(lambda s, t, label: hint(s.mean(1), t.mean(1)), 0.3, "encoder", "encoder", name="one"),
        DistillationTerm(hint, 0.2, ["norm", "middle"], ["norm", "middle"], adapters, name="two"),
    ]


def three_by_hand(adapters: list[nn.Module]) -> Any:
    def terms(s: dict[str, torch.Tensor], t: dict[str, torch.Tensor], label: torch.Tensor, time: float) -> list:
        s, t = ({name: value.float() for name, value in maps.items()} for maps in (s, t))
        layers = torch.stack([hint(adapters[i](s[name]), t[name]) for i, name in enumerate(("norm", "middle"))])
        encoders = hint(s["encoder"].mean(1), t["encoder"].mean(1))
        return [0.7 * soften(s["head"], t["head"]), 0.3 * encoders, 0.2 * layers.sum()]

    return terms


def prediction(engine: Any) -> torch.Tensor:
    return engine.state.output["pred"]


class Softened:
    """A loss with a temperature."""

    def __init__(self, temperature: float = 1.0) -> None:
        self.temperature = temperature

    def __call__(self, student: torch.Tensor, teacher: torch.Tensor, label: torch.Tensor | None) -> torch.Tensor:
        return self.temperature * soften(student / self.temperature, teacher / self.temperature, label)


@pytest.mark.parametrize("layers", [(), ("norm", "norm", nn.Conv2d(4, 6, 1))])
def test_weight_0_is_no_handler(layers):
    alone, distilled = student_net(), student_net()
    make_trainer(alone).run()
    distil(distilled, [DistillationTerm(hint if layers else soften, 0.0, *layers)])
    assert same(alone, distilled)
    assert not same(alone, student_net())


def test_term_of_weight_0_has_no_gradient_that_could_spoil():
    """A root at 0 has a finite value, and an infinite gradient: times 0 it would be NaN."""
    alone, distilled, graphs = student_net(), student_net(), []

    def root(student: torch.Tensor, teacher: torch.Tensor, label: Any) -> torch.Tensor:
        value = (student * 0).sum().sqrt()
        graphs.append(value.requires_grad)
        return value

    make_trainer(alone).run()
    distil(distilled, [DistillationTerm(root, 0.0)])
    assert same(alone, distilled)
    assert graphs == [False] * 8


def test_no_term_is_no_handler():
    alone, distilled = student_net(), student_net()
    make_trainer(alone).run()
    distil(distilled, [])
    assert same(alone, distilled)


@pytest.mark.parametrize(
    ("accumulation", "amp", "supervised_weight"),
    [(1, False, 1.0), (2, False, 0.25), (1, True, 1.0), (2, True, 1.0)],
)
def test_equals_the_loop_by_hand(request, accumulation, amp, supervised_weight):
    mixed = request.getfixturevalue("emulated_amp") if amp else {}
    student, by_hand, seen = student_net(), student_net(), []
    adapters = [ChannelAdapter(4, 6), ChannelAdapter(4, 6)]
    start, others = copy.deepcopy(adapters), copy.deepcopy(adapters)
    _, trainer = distil(
        student,
        three_terms(adapters),
        supervised_weight=supervised_weight,
        accumulation_steps=accumulation,
        amp=amp,
        decollate=False,
        handlers=[On(IterationEvents.FORWARD_COMPLETED, lambda engine: seen.append(prediction(engine).dtype))],
    )
    loop_by_hand(
        by_hand,
        teacher_net(),
        three_by_hand(others),
        adapters=others,
        supervised_weight=supervised_weight,
        accumulation=accumulation,
        **mixed,
    )
    assert same(student, by_hand)
    assert all(same(adapter, other) for adapter, other in zip(adapters, others))
    assert not any(same(adapter, other) for adapter, other in zip(adapters, start))
    assert set(seen) == {torch.bfloat16 if amp else torch.float32}
    assert trainer.state.output["loss_two"].dtype == torch.float32


def test_schedules_follow_the_epochs_done():
    loss, cooling = Softened(), LinearSchedule(4.0, 1.0, 1, begin=1)
    student, by_hand = student_net(), student_net()
    term = DistillationTerm(loss, weight=LinearSchedule(0.0, 1.0, 2), temperature=cooling)
    distil(student, [term])

    def terms(s, t, label, time):
        own = Softened(4.0 - 3.0 * max(time - 1.0, 0.0))
        return [min(time / 2, 1.0) * own(s["head"], t["head"], label)]

    loop_by_hand(by_hand, teacher_net(), terms)
    assert same(student, by_hand)
    assert term.loss.temperature == pytest.approx(4.0 - 3.0 * 0.75)


def test_measuring_changes_nothing():
    students = [student_net(), student_net()]
    for student, interval in zip(students, (0, 1)):
        distil(student, [DistillationTerm(soften)], monitor_interval=interval)
    assert same(*students)


def test_two_handlers_add_up():
    both, one = student_net(), student_net()
    first, second = DistillationTerm(soften, 0.5), DistillationTerm(hint, 0.25)
    distil(both, [first], handlers=[handler_of(second)])
    distil(one, [first, second])
    assert same(both, one)


def test_attach_twice_is_once():
    once, twice = student_net(), student_net()
    distil(once, [DistillationTerm(soften)])
    handler = handler_of(DistillationTerm(soften))
    trainer = make_trainer(twice, [handler, handler])
    handler.attach(trainer)
    trainer.run()
    assert same(once, twice)


def test_three_dimensions():
    student, by_hand = (student_net(dims=3) for _ in range(2))
    adapter = ChannelAdapter(4, 6, spatial_dims=3)
    other, size = copy.deepcopy(adapter), {"length": 4, "size": 4, "dims": 3}
    terms = [DistillationTerm(soften, 0.5), DistillationTerm(hint, 0.5, "encoder", "encoder", adapter)]
    distil(student, terms, teacher_net(dims=3), data=make_data(**size))
    loop_by_hand(
        by_hand,
        teacher_net(dims=3),
        lambda s, t, *_: [0.5 * soften(s["head"], t["head"]), 0.5 * hint(other(s["encoder"]), t["encoder"])],
        adapters=[other],
        batches=make_batches(**size),
    )
    assert same(student, by_hand)
    assert same(adapter, other)


def test_teacher_of_other_depth_size_and_width():
    network = nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1), nn.AvgPool2d(2), nn.Conv2d(6, 2, 1), nn.Upsample(scale_factor=2)
    )
    adapter, student, by_hand = ChannelAdapter(4, 6, scale_factor=0.5), student_net(), student_net()
    other, reference = copy.deepcopy(adapter), copy.deepcopy(network)
    distil(student, [DistillationTerm(hint, 1.0, "middle", "1", adapter)], network)
    images = iter([batch["image"] for batch in make_batches() * 2])

    def terms(s, t, label, time):
        smaller = F.interpolate(other.projection(s["middle"]), scale_factor=0.5, mode="bilinear")
        return [hint(smaller, reference[:2](next(images)).detach())]

    loop_by_hand(by_hand, teacher_net(), terms, adapters=[other])
    assert same(student, by_hand)
    assert same(adapter, other)


def test_metatensors_are_equal_to_tensors():
    plain, with_meta = student_net(), student_net()
    terms = [DistillationTerm(soften, 0.5), DistillationTerm(hint, 0.5, "middle", "middle", ChannelAdapter(4, 6))]
    meta = {"affine": torch.eye(3)}
    data = [{key: MetaTensor(value, meta=meta) for key, value in item.items()} for item in make_data()]
    kinds = []
    watch = On(IterationEvents.FORWARD_COMPLETED, lambda engine: kinds.append(type(prediction(engine))))
    _, trainer = distil(plain, copy.deepcopy(terms), monitor_interval=1)
    _, other = distil(with_meta, terms, data=data, monitor_interval=1, handlers=[watch])
    assert same(plain, with_meta)
    assert set(kinds) == {MetaTensor}
    assert isinstance(other.state.output[0]["pred"], MetaTensor)
    for key in ("gradient_ratio_soften", "gradient_ratio_hint"):
        assert other.state.output[0][key] == trainer.state.output[0][key] > 0


class TestDeepSupervision:
    def test_first_output_alone(self):
        student, by_hand = (student_net(scales=3) for _ in range(2))
        distil(student, [DistillationTerm(soften, 0.5)])
        loop_by_hand(by_hand, teacher_net(), lambda s, t, *_: [0.5 * soften(s["finest"], t["head"])])
        assert same(student, by_hand)

    @pytest.mark.parametrize("teacher_scales", [1, 3])
    def test_all_outputs_at_the_teachers_sizes(self, teacher_scales):
        seen = []

        def note(own: torch.Tensor, target: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
            seen.append((tuple(own.shape), tuple(target.shape)))
            return hint(own, target)

        network = teacher_net() if teacher_scales == 1 else ThreeScales()
        distil(student_net(scales=3), [DistillationTerm(note, 0.5, outputs="all")], network, epochs=1)
        sizes = [(2, 2, 16, 16)] * 3 if teacher_scales == 1 else [(2, 2, 16, 16), (2, 2, 8, 8), (2, 2, 4, 4)]
        assert seen == [(size, size) for size in sizes] * 4

    @pytest.mark.parametrize("outputs", ["first", "all"])
    def test_stacked_outputs_are_a_list_of_them(self, outputs):
        """MONAI's network, as it is and made to return a list."""
        trained = []
        for kind in (StackedUNet, ListUNet):
            student, terms = seeded(kind), [DistillationTerm(soften, 0.5, outputs=outputs)]
            data = [item | {"image": MetaTensor(item["image"])} for item in make_data(4, 32)]
            _, trainer = distil(student, terms, data=data, loss_function=every_output, monitor_interval=1)
            trained.append((student, trainer.state.output[0]))
        assert same(trained[0][0], trained[1][0])
        assert trained[0][1]["loss_soften"] == trained[1][1]["loss_soften"] > 0
        if outputs == "all":  # else they are measured at the first output, of what is stacked at the whole
            ratios = [output["gradient_ratio_soften"] for _, output in trained]
            assert ratios[0] == pytest.approx(ratios[1], rel=1e-5)
        assert trained[0][1]["gradient_ratio_soften"] > 0

    def test_stacked_outputs_of_a_teacher(self):
        students = [student_net(scales=3), student_net(scales=3)]
        for student, network in zip(students, (ThreeScales, Stacked)):
            distil(student, [DistillationTerm(soften, 0.5)], seeded(network))
        assert same(*students)


def every_output(logits: Any, label: torch.Tensor) -> torch.Tensor:
    outputs = logits if isinstance(logits, list) else logits.unbind(1)
    return sum(segmentation_loss(output, label) / 2**i for i, output in enumerate(outputs))


class StackedUNet(DynUNet):
    def __init__(self) -> None:
        kernels, strides = [3, 3, 3, 3], [1, 2, 2, 2]
        super().__init__(2, 1, 2, kernels, strides, strides[1:], [4, 8, 16, 16], deep_supervision=True, deep_supr_num=2)


class ListUNet(StackedUNet):
    def forward(self, image: torch.Tensor) -> Any:
        logits = super().forward(image)
        return list(logits.as_tensor().unbind(1)) if self.training else logits


class ThreeScales(nn.Conv2d):
    """A teacher that returns several outputs, also in eval mode."""

    def __init__(self) -> None:
        super().__init__(1, 2, 1)

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        logits = super().forward(image)
        return [logits, logits[..., ::2, ::2], logits[..., ::4, ::4]]


class Stacked(ThreeScales):
    """A teacher that stacks as many outputs of one size."""

    def forward(self, image: torch.Tensor) -> Any:
        return torch.stack([super().forward(image)[0]] * 3, dim=1)
