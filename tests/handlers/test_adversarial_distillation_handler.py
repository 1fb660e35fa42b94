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
import gc
import weakref
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.data import MetaTensor
from monai.engines.utils import IterationEvents
from monai.handlers import CheckpointLoader, CheckpointSaver, StatsHandler
from torch import nn
from torch.utils.data import DataLoader

from monai_kd.handlers import DistillationTerm, EpochSeedHandler, LinearSchedule, loss_terms
from monai_kd.networks import Teacher, TeacherTeam
from tests.handlers.adversarial_case import LAYERS, adversary, discriminator_net, loop_by_hand, teacher_nets
from tests.handlers.engine_case import hint, hooks_of, make_batches, make_data, same, soften, student_net
from tests.handlers.training import On, adam, handler_of, make_trainer

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*drowns the supervised loss:UserWarning"),
    pytest.mark.filterwarnings("ignore:the teacher predicted class 1 alone:UserWarning"),
]
NAMES = {"loss", "loss_supervised", "loss_adversarial", "loss_adversarial_weighted", "loss_discriminator"}
NAMES |= {"discriminator_accuracy"}


def train(handler: Any, student: nn.Module | None = None, **kwargs: Any) -> SimpleNamespace:
    """Train the case's student with the handler; what each iteration logged is kept."""
    student, log = student_net() if student is None else student, []
    note = On(IterationEvents.MODEL_COMPLETED, lambda engine: log.append(loss_terms(engine.state.output)))
    trainer = make_trainer(student, [handler, note, *kwargs.pop("handlers", ())], **kwargs)
    trainer.run()
    return SimpleNamespace(student=student, discriminator=handler.discriminator, log=log, trainer=trainer)


def assert_equal(trained: SimpleNamespace, student: nn.Module, discriminator: nn.Module, log: list) -> None:
    assert same(trained.student, student)
    assert same(trained.discriminator, discriminator)
    assert not same(trained.discriminator, discriminator_net(dims=discriminator.head.weight.ndim - 2))
    for own, expected in zip(trained.log, log, strict=True):
        assert {name: own[name] for name in expected} == pytest.approx(expected, rel=1e-6)


class TestAgainstTheLoopByHand:
    def test_weight_0_is_no_handler(self):
        alone, handler = student_net(), adversary(teacher_nets(1), weight=0.0)
        make_trainer(alone).run()
        trained = train(handler)
        assert same(trained.student, alone)
        assert not same(trained.discriminator, discriminator_net())
        assert trained.log[-1]["loss"] == trained.log[-1]["loss_supervised"]
        assert not same(train(adversary(teacher_nets(1))).student, alone)

    @pytest.mark.parametrize(("accumulation", "amp"), [(1, False), (2, False), (1, True), (2, True)])
    def test_equals_it(self, request, accumulation, amp):
        mixed = request.getfixturevalue("emulated_amp") if amp else {}
        student, discriminator = student_net(), discriminator_net()
        trained = train(adversary(teacher_nets(1)), accumulation_steps=accumulation, amp=amp)
        log = loop_by_hand(student, teacher_nets(1), discriminator, accumulation=accumulation, **mixed)
        assert_equal(trained, student, discriminator, log)

    @pytest.mark.filterwarnings("ignore:.*CUDA is not available:UserWarning")
    @pytest.mark.filterwarnings("ignore:.*GradScaler.*:FutureWarning")
    @pytest.mark.skipif(torch.cuda.is_available(), reason="for a machine where mixed precision does nothing")
    def test_mixed_precision_without_a_gpu_is_none(self):
        plain, mixed = (train(adversary(teacher_nets(1)), amp=amp) for amp in (False, True))
        assert same(plain.student, mixed.student)
        assert same(plain.discriminator, mixed.discriminator)

    @pytest.mark.gpu
    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    def test_mixed_precision_on_a_gpu(self):
        """Half precision with MONAI's own scaler: both networks learn, and stay close to single precision."""
        single, half = (
            train(adversary(teacher_nets(1)), student_net().cuda(), amp=amp, device="cuda", epochs=1)
            for amp in (False, True)
        )
        for one, other in zip(single.log, half.log, strict=True):
            assert other["loss"] == pytest.approx(one["loss"], rel=0.05)
        assert not torch.equal(half.discriminator.head.weight.cpu(), discriminator_net().head.weight)

    def test_window_that_the_epoch_cuts_off(self):
        """Four iterations of three: the fourth is a step of its own, divided by three as the trainer does."""
        student, discriminator = student_net(), discriminator_net()
        steps = []
        handler = adversary(teacher_nets(1))
        note = On(Events.ITERATION_COMPLETED, lambda engine: steps.append(handler.turn))
        trained = train(handler, accumulation_steps=3, handlers=[note])
        assert steps == [0, 0, 1, 2, 2, 2, 3, 4]
        assert not same(trained.student, student)
        assert not same(trained.discriminator, discriminator)

    def test_logits_as_in_had_net(self):
        student, discriminator = student_net(), discriminator_net()
        trained = train(adversary(teacher_nets(1), probabilities=False))
        log = loop_by_hand(student, teacher_nets(1), discriminator, seen=lambda logits: logits)
        assert_equal(trained, student, discriminator, log)

    def test_one_channel_is_a_sigmoid(self):
        """The first of two classes, of which the student of the case has its softmax."""
        one, seen = student_net(classes=1), []

        class Judge(nn.Conv2d):
            def forward(self, segmentation: torch.Tensor, image: torch.Tensor, features: list) -> torch.Tensor:
                seen.append(segmentation.detach())
                return super().forward(segmentation)

        loss = lambda logits, label: (logits.sigmoid() - label).square().mean()  # noqa: E731
        logits = []
        note = On(IterationEvents.FORWARD_COMPLETED, lambda e: logits.append(e.state.output["pred"].detach()))
        handler = adversary(teacher_nets(1, classes=1), discriminator=Judge(1, 1, 1))
        train(handler, one, loss_function=loss, handlers=[note], epochs=1, decollate=False)
        assert all(torch.equal(each, own.sigmoid()) for each, own in zip(seen[::3], logits, strict=True))

    def test_in_three_dimensions(self):
        nets, student, discriminator = teacher_nets(1, dims=3), student_net(dims=3), discriminator_net(dims=3)
        handler = adversary(nets, discriminator=discriminator_net(dims=3))
        trained = train(handler, student_net(dims=3), data=make_data(4, size=8, dims=3))
        log = loop_by_hand(student, nets, discriminator, batches=make_batches(length=4, size=8, dims=3))
        assert_equal(trained, student, discriminator, log)

    def test_weight_follows_the_epochs(self):
        log = train(adversary(teacher_nets(1), weight=LinearSchedule(0.0, 1.0, 2))).log
        weights = [own["loss_adversarial_weighted"] / own["loss_adversarial"] for own in log]
        assert weights == pytest.approx([i / 8 for i in range(8)], abs=1e-6)

    def test_meta_tensors_and_several_outputs(self):
        """The output of full resolution is what the discriminator sees."""
        data = [{key: MetaTensor(value) for key, value in item.items()} for item in make_data()]
        student = student_net(scales=2)
        trained = train(adversary(teacher_nets(1)), student, data=data)
        plain = train(adversary(teacher_nets(1)))
        assert same(trained.student, plain.student)
        assert same(trained.discriminator, plain.discriminator)

    @pytest.mark.parametrize("double", [False, True])
    def test_precision_of_the_networks(self, double):
        data = [item | {"image": item["image"].double()} for item in make_data()]
        discriminator = discriminator_net().double() if double else discriminator_net()
        nets = [net.double() for net in teacher_nets(1)]
        trained = train(adversary(nets, discriminator=discriminator), student_net().double(), data=data)
        single = train(adversary(teacher_nets(1)))
        assert {p.dtype for p in trained.discriminator.parameters()} == {torch.float64 if double else torch.float32}
        assert trained.log[0] == pytest.approx(single.log[0], rel=1e-5)

    @pytest.mark.slow
    def test_compiled_student(self, fresh_compiler):
        compiled = student_net()
        kwargs = {"compile": True, "compile_kwargs": {"backend": "eager"}, "epochs": 1}
        compiled = train(adversary(teacher_nets(1)), compiled, **kwargs)
        plain = train(adversary(teacher_nets(1)), epochs=1)
        torch.testing.assert_close(compiled.student.state_dict(), plain.student.state_dict(), rtol=0, atol=1e-6)


class TestTeachers:
    TURNS = {
        "alternate": lambda step: [step % 3],
        "sequential": lambda step: [min(step // 4 * 3 // 2, 2)],
        "both": lambda step: [0, 1, 2],
    }

    @staticmethod
    def asked(nets: list[Any], epochs: int = 2, **options: Any) -> list[list[int]]:
        """The teachers that were asked in each iteration; in the first the others are heard too, whether they fit."""
        calls: list[list[int]] = []
        for i, net in enumerate(nets):
            net.register_forward_hook(lambda module, inputs, output, i=i: calls[-1].append(i))
        begin = On(Events.ITERATION_STARTED, lambda engine: calls.append([]))
        accumulation = options.pop("accumulation", 1)
        train(adversary(nets, **options), handlers=[begin], epochs=epochs, accumulation_steps=accumulation)
        assert sorted(calls[0]) == list(range(len(nets)))
        return [calls[0][: len(calls[1])], *calls[1:]]

    @pytest.mark.parametrize("turns", TURNS)
    def test_equal_the_loop_by_hand(self, turns):
        student, discriminator = student_net(), discriminator_net()
        trained = train(adversary(teacher_nets(3), turns=turns))
        log = loop_by_hand(student, teacher_nets(3), discriminator, in_turn=self.TURNS[turns])
        assert_equal(trained, student, discriminator, log)

    def test_take_turns(self):
        assert self.asked(teacher_nets(2)) == [[0], [1]] * 4
        assert self.asked(teacher_nets(2), turns="both") == [[0, 1]] * 8
        assert self.asked(teacher_nets(2), turns="sequential") == [[0]] * 4 + [[1]] * 4
        assert self.asked(teacher_nets(2), turns="sequential", epochs=3) == [[0]] * 8 + [[1]] * 4
        assert self.asked(teacher_nets(1), turns="sequential") == [[0]] * 8

    def test_a_turn_is_a_step_of_the_discriminator(self):
        assert self.asked(teacher_nets(2), accumulation=2) == [[0], [0], [1], [1]] * 2
        assert self.asked(teacher_nets(2), max_accuracy=1e-6) == [[0], [1]] * 4  # also one that is held back

    def test_random_turns_are_fair_and_the_same_again(self):
        drawn = self.asked(teacher_nets(2), turns="random", epochs=8)
        assert drawn == self.asked(teacher_nets(2), turns="random", epochs=8)
        assert 8 <= sum(each == [0] for each in drawn) <= 24
        assert drawn not in ([[0], [1]] * 16, [[1], [0]] * 16)
        assert drawn != self.asked(teacher_nets(2), turns="random", epochs=8, seed=1)

    def test_layers_by_member(self):
        class Other(nn.Module):
            def __init__(self, net: Any) -> None:
                super().__init__()
                self.net = net

            def forward(self, image: torch.Tensor) -> torch.Tensor:
                return self.net(image)

        plain = train(adversary(teacher_nets(2)))
        nets = teacher_nets(2)
        team = TeacherTeam({"a": Teacher(nets[0]), "b": Teacher(Other(nets[1]))})
        layers = {"a": LAYERS, "b": [f"net.{layer}" for layer in LAYERS]}
        named = train(adversary([], teacher=team, teacher_layers=layers))
        assert same(named.student, plain.student)
        assert same(named.discriminator, plain.discriminator)

    def test_see_their_own_image(self):
        nets, other = teacher_nets(2), make_data()
        data = [item | {"bright": item["image"] * 2} for item in other]
        seen = []
        nets[1].register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
        team = TeacherTeam([Teacher(nets[0]), Teacher(nets[1], image_key="bright")])
        train(adversary([], teacher=team), data=data, epochs=1)
        batches = make_batches()
        # heard in the first batch, in turn in the second and fourth
        for image, i in zip(seen, (0, 1, 3), strict=True):
            assert torch.equal(image, 2 * batches[i]["image"])


class TestGate:
    def test_equals_the_loop_by_hand_and_holds_some_steps_back(self):
        student, discriminator = student_net(), discriminator_net()
        gate = 0.55
        trained = train(adversary(teacher_nets(1), max_accuracy=gate), epochs=4)
        log = loop_by_hand(student, teacher_nets(1), discriminator, max_accuracy=gate, epochs=4)
        assert_equal(trained, student, discriminator, log)
        held = [own["discriminator_accuracy"] > gate for own in trained.log]
        assert set(held) == {True, False}

    def test_accumulated_steps_are_held_back_by_the_mean(self):
        student, discriminator = student_net(), discriminator_net()
        trained = train(adversary(teacher_nets(1), max_accuracy=0.55), epochs=4, accumulation_steps=2)
        log = loop_by_hand(student, teacher_nets(1), discriminator, max_accuracy=0.55, epochs=4, accumulation=2)
        assert_equal(trained, student, discriminator, log)

    @pytest.mark.parametrize(("gate", "stepped"), [(0.99, False), (1.0, True), (None, True)])
    def test_a_discriminator_that_is_always_right_learns_without_a_gate(self, gate, stepped):
        class Judge(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.bias = nn.Parameter(torch.zeros(()))
                self.calls = 0

            def forward(self, segmentation: torch.Tensor, image: torch.Tensor, features: list) -> torch.Tensor:
                self.calls += 1  # the student's loss, the student again, the teacher
                return segmentation[:, :1] * 0 + self.bias + (0.9 if self.calls % 3 == 0 else 0.0)

        judge = Judge()
        optimizer = torch.optim.SGD(judge.parameters(), lr=0.01)
        handler = adversary(
            teacher_nets(1), discriminator=judge, optimizer=optimizer, max_accuracy=gate, monitor_interval=0
        )
        log = train(handler).log
        assert [own["discriminator_accuracy"] for own in log] == [1.0] * 8
        assert log[0]["loss_discriminator"] == pytest.approx(0.01)
        assert (judge.bias.item() != 0) is stepped


class TestGradients:
    def test_neither_reaches_the_other_network(self):
        student, handler = student_net(), adversary(teacher_nets(2))
        kept: dict[str, list[torch.Tensor]] = {}

        def gradients(network: nn.Module) -> list[torch.Tensor]:
            return [torch.zeros(1) if p.grad is None else p.grad.clone() for p in network.parameters()]

        def before_the_step(engine: Any) -> None:
            """The student's backward pass has been, the discriminator's has not."""
            now = gradients(handler.discriminator)
            assert all(torch.equal(a, b) for a, b in zip(now, kept["discriminator"], strict=True))
            kept["student"] = gradients(student)
            assert all(gradient.abs().sum() > 0 for gradient in kept["student"] if gradient.ndim > 1)

        def after_the_step(engine: Any) -> None:
            now = gradients(student)
            assert all(torch.equal(a, b) for a, b in zip(now, kept["student"], strict=True))
            kept["discriminator"] = gradients(handler.discriminator)
            assert all(gradient.abs().sum() > 0 for gradient in kept["discriminator"] if gradient.ndim > 1)
            counted.append(engine.state.iteration)

        counted: list[int] = []
        kept["discriminator"] = gradients(handler.discriminator)
        first = On(IterationEvents.BACKWARD_COMPLETED, before_the_step)
        last = On(IterationEvents.BACKWARD_COMPLETED, after_the_step)
        make_trainer(student, [first, handler, last]).run()
        assert counted == list(range(1, 9))
        assert all(parameter.requires_grad for parameter in handler.discriminator.parameters())

    def test_teachers_are_not_changed(self):
        nets = teacher_nets(2)
        start = [copy.deepcopy(net) for net in nets]
        train(adversary(nets, turns="both"))
        for net, other in zip(nets, start):
            assert same(net, other)
            assert all(parameter.grad is None for parameter in net.parameters())

    def test_frozen_weights_of_the_discriminator_stay_frozen(self):
        discriminator = discriminator_net()
        discriminator.head.requires_grad_(False)
        optimizer = adam(discriminator.blocks.parameters())
        trained = train(adversary(teacher_nets(1), discriminator=discriminator, optimizer=optimizer))
        assert torch.equal(trained.discriminator.head.weight, discriminator_net().head.weight)
        assert not torch.equal(trained.discriminator.blocks[0].conv.weight, discriminator_net().blocks[0].conv.weight)
        assert not trained.discriminator.head.weight.requires_grad


class TestBesideDistillationHandler:
    @staticmethod
    def both(first: bool, **options: Any) -> SimpleNamespace:
        """A term of the logits and one of a layer, before or after the adversary."""
        terms = [DistillationTerm(soften, 0.5), DistillationTerm(hint, 0.25, "norm", "norm")]
        other, adversarial = handler_of(*terms, teacher=teacher_nets(1)[0], **options), adversary(teacher_nets(2))
        student, log = student_net(), []
        note = On(IterationEvents.LOSS_COMPLETED, lambda engine: log.append(loss_terms(engine.state.output)))
        make_trainer(student, [*((other, adversarial) if first else (adversarial, other)), note]).run()
        return SimpleNamespace(student=student, discriminator=adversarial.discriminator, log=log)

    @pytest.mark.parametrize("weight", [1.0, 0.25, 0.0])
    def test_the_order_does_not_matter(self, weight):
        one, other = (self.both(first, supervised_weight=weight) for first in (True, False))
        torch.testing.assert_close(one.student.state_dict(), other.student.state_dict(), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(
            one.discriminator.state_dict(), other.discriminator.state_dict(), rtol=1e-4, atol=1e-6
        )
        for log in (one.log, other.log):
            for own in log:
                terms = sum(own[f"loss_{name}_weighted"] for name in ("soften", "hint", "adversarial"))
                assert own["loss"] == pytest.approx(weight * own["loss_supervised"] + terms, rel=1e-5)

    def test_first_losses_are_those_of_each_alone(self):
        own = self.both(True).log[0]
        alone = train(adversary(teacher_nets(2))).log[0]
        for name in ("loss_supervised", "loss_adversarial"):
            assert own[name] == alone[name]

    def test_shared_teacher(self):
        teacher = Teacher(teacher_nets(1)[0])
        term = DistillationTerm(hint, 0.25, "middle", "middle")
        students = []
        for asked in (teacher, Teacher(teacher_nets(1)[0])):
            handlers = [handler_of(term, teacher=asked), adversary([], teacher=teacher)]
            students.append(student_net())
            make_trainer(students[-1], handlers).run()
        assert same(*students)


class TestResume:
    @staticmethod
    def run(epochs: int, folder: Path, load: Path | None = None, turns: str = "alternate") -> SimpleNamespace:
        """One process of training, all that a checkpoint needs in it."""
        torch.manual_seed(17 + epochs)  # a resumed process starts from another random state
        student, discriminator = student_net(dropout=0.3), discriminator_net(seed=epochs if load else 4)
        handler = adversary(teacher_nets(3), discriminator=discriminator, turns=turns, max_accuracy=0.9)
        optimizer = adam(student.parameters())
        trainer = make_trainer(student, [EpochSeedHandler(3)], epochs=epochs, optimizer=optimizer)
        trainer.data_loader = DataLoader(make_data(), batch_size=2, shuffle=True)
        saved = {"network": student, "optimizer": optimizer, "trainer": trainer, "adversarial": handler}
        loader = [] if load is None else [CheckpointLoader(str(load), saved)]
        saver = CheckpointSaver(str(folder), saved, save_final=True, final_filename=f"{epochs}.pt")
        for each in [handler, *loader, saver]:
            each.attach(trainer)
        trainer.run()
        return SimpleNamespace(student=student, handler=handler)

    @pytest.mark.parametrize("turns", ["alternate", "random"])
    def test_2_and_2_epochs_are_4(self, tmp_path, turns):
        whole = self.run(4, tmp_path / "whole", turns=turns)
        first = self.run(2, tmp_path / "parts", turns=turns)
        second = self.run(4, tmp_path / "parts", load=tmp_path / "parts" / "2.pt", turns=turns)
        assert same(second.student, whole.student)
        assert same(second.handler.discriminator, whole.handler.discriminator)
        assert not same(first.handler.discriminator, whole.handler.discriminator)
        states = [run.handler.optimizer.state_dict() for run in (second, whole)]
        torch.testing.assert_close(*states, rtol=0, atol=0)
        assert (first.handler.turn, second.handler.turn, whole.handler.turn) == (8, 16, 16)

    def test_checkpoint_holds_what_is_needed_and_no_teacher(self, tmp_path):
        self.run(2, tmp_path)
        state = torch.load(tmp_path / "2.pt", weights_only=True)["adversarial"]
        assert set(state) == {"discriminator", "optimizer", "turn", "balancer"}
        assert state["discriminator"].keys() == discriminator_net().state_dict().keys()

    def test_a_lost_turn_shows(self, tmp_path):
        """Three teachers and eight turns: without the turn the resumed run would begin with another teacher."""
        self.run(2, tmp_path)
        state = torch.load(tmp_path / "2.pt", weights_only=True)
        assert state["adversarial"]["turn"] % 3 != 0
        state["adversarial"]["turn"] = 0
        torch.save(state, tmp_path / "lost.pt")
        kept, lost = (self.run(4, tmp_path, load=tmp_path / name) for name in ("2.pt", "lost.pt"))
        assert not same(kept.student, lost.student)


class TestLog:
    def test_values_add_up(self):
        log = train(adversary(teacher_nets(2), monitor_interval=0)).log
        for own in log:
            assert set(own) == NAMES
            assert own["loss"] == pytest.approx(own["loss_supervised"] + own["loss_adversarial_weighted"])
            assert own["loss_adversarial_weighted"] == pytest.approx(0.5 * own["loss_adversarial"])
            assert 0 <= own["discriminator_accuracy"] <= 1

    def test_gradient_ratio(self):
        """That of the first step, from the gradients of each loss by itself."""
        log = train(adversary(teacher_nets(1), monitor_interval=4)).log
        assert ["gradient_ratio_adversarial" in own for own in log] == [True, False, False, False] * 2
        student, discriminator, batch = student_net(), discriminator_net(), make_batches()[0]
        student.relu.inplace = False
        norm = student.norm(student.encoder(batch["image"]))
        middle = student.middle(student.relu(norm))
        logits = student.head(middle)
        decision = discriminator(logits.softmax(1), batch["image"], [norm, middle])
        supervised = nn.functional.cross_entropy(logits, batch["label"][:, 0].long())
        norms = []
        for loss in (0.5 * (decision - 1).square().mean(), supervised):
            gradients = torch.autograd.grad(loss, [logits, norm, middle], retain_graph=True)
            norms.append(torch.stack([gradient.norm() for gradient in gradients]).norm().item())
        assert log[0]["gradient_ratio_adversarial"] == pytest.approx(norms[0] / norms[1], rel=1e-4)

    def test_stats_handler(self, capsys):
        stats = StatsHandler(name="adversarial_stats", output_transform=loss_terms)
        train(adversary(teacher_nets(1)), handlers=[stats], epochs=1)
        lines = [line for line in capsys.readouterr().out.splitlines() if "Iter:" in line]
        assert len(lines) == 4
        assert all(f"{name}: " in lines[-1] for name in NAMES)


class TestNothingStays:
    def test_after_training(self):
        nets, student = teacher_nets(2), student_net()
        handler = adversary(nets)
        train(handler, student)
        assert [hooks_of(network) for network in (student, *nets)] == [0, 0, 0]
        assert student.relu.inplace
        assert (handler.knowledge, handler._said) == (None, None)

    @pytest.mark.parametrize("event", [IterationEvents.LOSS_COMPLETED, IterationEvents.BACKWARD_COMPLETED])
    @pytest.mark.parametrize("beside", [False, True])
    def test_after_an_exception(self, event, beside):
        def fail(engine: Any) -> None:
            raise KeyError("a fault of the pipeline")

        nets, student = teacher_nets(2), student_net()
        handlers = [adversary(nets), *([handler_of(DistillationTerm(soften))] if beside else [])]
        with pytest.raises(KeyError, match="a fault of the pipeline"):
            make_trainer(student, [*handlers, On(event, fail)]).run()
        assert [hooks_of(network) for network in (student, *nets)] == [0, 0, 0]
        assert (handlers[0].knowledge, handlers[0]._said) == (None, None)

    def test_maps_are_released_after_each_step(self):
        references, alive = [], []

        class Judge(nn.Conv2d):
            def forward(self, segmentation: torch.Tensor, image: torch.Tensor, features: list) -> torch.Tensor:
                references.extend([weakref.ref(segmentation), *map(weakref.ref, features)])
                return super().forward(torch.cat([segmentation, *features], dim=1))

        count = On(Events.ITERATION_COMPLETED, lambda engine: alive.append(sum(r() is not None for r in references)))
        handler = adversary(teacher_nets(2), discriminator=Judge(10, 1, 1), monitor_interval=1)
        gc.disable()  # what only the collector finds piles up on a GPU until it runs
        try:
            make_trainer(student_net(), [handler, count]).run()
        finally:
            gc.enable()
        assert len(references) == (8 * 3 + 1) * 3  # the teacher that is not in turn is heard in the first step
        assert alive == [0] * 8

    def test_second_run_goes_on(self):
        handler = adversary(teacher_nets(2))
        trained = train(handler)
        trained.trainer.state.max_epochs = 3
        trained.trainer.run()
        assert handler.turn == 12
