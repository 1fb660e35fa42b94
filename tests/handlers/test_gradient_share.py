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

"""Weights that set themselves: values against gradients by hand, laws, state, ranks, precision."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from ignite.engine import Events
from monai.bundle import ConfigParser
from monai.handlers import CheckpointLoader, CheckpointSaver
from torch.utils.data import DataLoader

from monai_kd.handlers import DistillationTerm, EpochSeedHandler, GradientShare, LinearSchedule, loss_terms
from monai_kd.handlers._gradient_balancer import GradientBalancer, LearningGuard
from tests.handlers.adversarial_case import adversary, teacher_nets
from tests.handlers.engine_case import hint, make_batches, make_data, same, soften, student_net, teacher_net
from tests.handlers.training import On, distil, handler_of, make_trainer, segmentation_loss

pytestmark = pytest.mark.filterwarnings("ignore:the teacher predicted class")


def logged(student, handlers, **kwargs):
    """What a training logs in each iteration."""
    log = []
    note = On(Events.ITERATION_COMPLETED, lambda engine: log.append(loss_terms(engine.state.output)))
    make_trainer(student, [*handlers, note], **kwargs).run()
    return log


def norm(loss, anchor):
    """The L2 norm of a gradient."""
    return torch.autograd.grad(loss, anchor, retain_graph=True)[0].norm().item()


class TestValue:
    def test_first_weight_by_hand(self):
        batch, student, teacher = make_batches()[0], student_net().train(), teacher_net().eval()
        logits, target = student(batch["image"]), teacher(batch["image"]).detach()
        supervised = norm(segmentation_loss(logits, batch["label"]), logits)
        expected = 0.25 * supervised / norm(soften(logits, target), logits)
        log = logged(student_net(), [handler_of(DistillationTerm(soften, GradientShare(0.25)))])
        assert log[0]["weight_soften"] == pytest.approx(expected, rel=1e-4)
        assert log[0]["gradient_ratio_soften"] == pytest.approx(0.25, rel=1e-4)
        weighted = log[0]["weight_soften"] * log[0]["loss_soften"]
        assert log[0]["loss_soften_weighted"] == pytest.approx(weighted)
        assert log[0]["loss"] == pytest.approx(log[0]["loss_supervised"] + weighted)

    def test_of_a_captured_layer(self):
        batch, student, teacher = make_batches()[0], student_net().train(), teacher_net(channels=4).eval()
        maps = {}
        for who, network in (("student", student), ("teacher", teacher)):
            hook = lambda module, given, output, who=who: maps.update({who: output})  # noqa: E731
            network.middle.register_forward_hook(hook)
        logits, _ = student(batch["image"]), teacher(batch["image"])
        supervised = norm(segmentation_loss(logits, batch["label"]), maps["student"])
        expected = supervised / norm(hint(maps["student"], maps["teacher"].detach()), maps["student"])
        term = DistillationTerm(hint, "auto", "middle", "middle")
        log = logged(student_net(), [handler_of(term, teacher=teacher_net(channels=4))])
        assert log[0]["weight_hint"] == pytest.approx(expected, rel=1e-4)

    def test_terms_of_auto_share_what_the_handler_gives(self):
        terms = [DistillationTerm(soften, "auto"), DistillationTerm(hint, "auto")]
        terms.append(DistillationTerm(hint, GradientShare(0.3), name="own"))
        log = logged(student_net(), [handler_of(*terms, auto_share=0.8)])
        ratios = [log[0][f"gradient_ratio_{name}"] for name in ("soften", "hint", "own")]
        assert ratios == pytest.approx([0.4, 0.4, 0.3], rel=1e-4)

    def test_share_follows_a_schedule(self):
        share = GradientShare(LinearSchedule(0.0, 1.0, epochs=2))
        log = logged(student_net(), [handler_of(DistillationTerm(soften, share), monitor_interval=1)])
        assert log[0]["weight_soften"] == 0.0
        assert log[-1]["weight_soften"] > 0.0

    def test_of_adversary(self):
        handler = adversary(teacher_nets(1), weight=GradientShare(0.2), monitor_interval=1)
        log = logged(student_net(), [handler])
        assert log[0]["gradient_ratio_adversarial"] == pytest.approx(0.2, rel=1e-4)
        weighted = log[3]["weight_adversarial"] * log[3]["loss_adversarial"]
        assert log[3]["loss_adversarial_weighted"] == pytest.approx(weighted, rel=1e-5)


class TestLaws:
    @pytest.mark.parametrize("factor", [1e-6, 1e6])
    def test_a_loss_on_another_scale_trains_the_same_student(self, factor):
        scaled = lambda student, teacher, label: factor * soften(student, teacher)  # noqa: E731
        students = student_net(), student_net()
        for student, loss in zip(students, (soften, scaled)):
            optimizer = torch.optim.SGD(student.parameters(), 0.1)  # Adam would enlarge what rounding leaves
            distil(student, [DistillationTerm(loss, "auto", name="kd")], optimizer=optimizer)
        for own, other in zip(*(student.parameters() for student in students)):
            torch.testing.assert_close(own, other, rtol=1e-3, atol=1e-5)

    def test_share_0_is_no_handler(self):
        alone, distilled = student_net(), student_net()
        make_trainer(alone).run()
        distil(distilled, [DistillationTerm(soften, GradientShare(0.0))])
        assert same(alone, distilled)

    def test_ratio_stays_near_the_share(self):
        term = DistillationTerm(soften, GradientShare(0.5))
        log = logged(student_net(), [handler_of(term, monitor_interval=1)], epochs=6)
        ratios = [step["gradient_ratio_soften"] for step in log]
        assert all(0.5 / 2 < ratio < 0.5 * 2 for ratio in ratios)

    def test_is_never_warned_of(self, recwarn):
        distil(student_net(), [DistillationTerm(soften, GradientShare(50.0))])
        assert not [each for each in recwarn if "drowns" in str(each.message)]

    def test_without_a_supervised_loss_the_weight_is_the_share(self):
        log = logged(student_net(), [handler_of(DistillationTerm(soften, "auto"), supervised_weight=0)])
        assert {step["weight_soften"] for step in log} == {1.0}

    def test_accumulation(self):
        term = DistillationTerm(soften, GradientShare(0.5))
        log = logged(student_net(), [handler_of(term, monitor_interval=1)], accumulation_steps=2)
        assert log[0]["gradient_ratio_soften"] == pytest.approx(0.5, rel=1e-4)
        assert all(step["gradient_ratio_soften"] == pytest.approx(0.5, rel=0.5) for step in log)

    @pytest.mark.parametrize("layers", [(), ("middle", "middle")])
    def test_compiled_student_gets_the_weights_of_the_plain_one(self, layers, fresh_compiler):
        found = []
        for options in ({}, {"compile": True, "compile_kwargs": {"backend": "aot_eager"}}):
            term = DistillationTerm(hint if layers else soften, "auto", *layers, name="term")
            handler = handler_of(term, teacher=teacher_net(channels=4))
            log = logged(student_net(), [handler], **options)
            found.append([step["weight_term"] for step in log])
        assert found[1] == pytest.approx(found[0], rel=1e-4)
        assert len(set(found[0])) > 2

    def test_in_yaml(self):
        share = {"_target_": "monai_kd.handlers.GradientShare", "share": 0.5}
        term = {"_target_": "monai_kd.handlers.DistillationTerm", "loss": {"_target_": "monai_kd.losses.KDLoss"}}
        parser = ConfigParser({"one": term | {"weight": share}, "other": term | {"weight": "auto"}})
        assert parser.get_parsed_content("one").weight.share == 0.5
        assert parser.get_parsed_content("other").auto


class TestBalancer:
    def test_smooths_and_limits_the_change(self):
        balancer = GradientBalancer()
        balancer.update({"kd": (1.0, 2.0)})
        assert balancer.scale("kd") == 2.0
        balancer.update({"kd": (2.0, 2.0)})  # 0.8 * 1 + 0.2 * 2 = 1.2
        assert balancer.scale("kd") == pytest.approx(2.0 / 1.2)
        balancer.update({"kd": (1e6, 2.0)})
        assert balancer.scale("kd") == pytest.approx(1.0 / 1.2)  # halved, not more

    def test_of_vanishing_gradients_nothing_is_learnt(self):
        balancer = GradientBalancer()
        balancer.update({"kd": (1.0, 2.0)})
        for own, reference in ((0.0, 1.0), (1.0, 0.0), (float("nan"), 1.0), (1.0, float("inf")), (1.0, None)):
            balancer.update({"kd": (own, reference)})
        assert balancer.scale("kd") == 2.0

    @pytest.mark.parametrize("own", [1e-30, 1e30])
    def test_range_is_limited(self, own):
        balancer = GradientBalancer()
        balancer.update({"kd": (1.0, 1.0)})
        for _ in range(100):
            balancer.update({"kd": (own, 1.0)})
        assert balancer.scale("kd") == pytest.approx(100.0 if own < 1 else 0.01)


class TestStudentThatStopsLearning:
    @staticmethod
    def towards_one_class(student, teacher, label):
        return (student[:, 1] - student[:, 0] + 20).square().mean()

    def test_share_falls_and_the_log_says_it(self, caplog):
        term = DistillationTerm(self.towards_one_class, GradientShare(100.0), name="bad")
        with pytest.warns(UserWarning, match="predicted class 0 alone"):
            handler, _ = distil(student_net(), [term], epochs=4)
        assert handler.term_weights.balancer.damping < 1
        assert "the student stops learning" in caplog.text
        assert "The share of bad falls to 0.5 of what was asked for" in caplog.text

    def test_share_stays_where_the_student_learns(self):
        handler, _ = distil(student_net(), [DistillationTerm(soften, "auto")], epochs=4)
        assert handler.term_weights.balancer.damping == 1.0

    def test_loss_above_that_of_the_start(self):
        guard = LearningGuard()
        for loss in [1.0] * 10 + [0.5] * 10:
            guard.see(torch.tensor(loss))
        assert guard.why(collapsed=False) == ""
        for _ in range(20):
            guard.see(torch.tensor(1.5))
        assert guard.why(collapsed=False) == "its supervised loss rose from 1 to 1.5"


def run(epochs, folder, load=None):
    """One process of training with two weights that set themselves."""
    torch.manual_seed(17 + epochs)
    student = student_net(dropout=0.3)
    optimizer = torch.optim.Adam(student.parameters(), 1e-2)
    terms = [DistillationTerm(soften, "auto"), DistillationTerm(hint, GradientShare(0.1))]
    handler = handler_of(*terms, monitor_interval=3)
    trainer = make_trainer(student, [EpochSeedHandler(3)], epochs=epochs, optimizer=optimizer)
    trainer.data_loader = DataLoader(make_data(), batch_size=2, shuffle=True)
    saved = {"network": student, "optimizer": optimizer, "trainer": trainer, "distillation": handler}
    loader = [] if load is None else [CheckpointLoader(str(load), saved)]
    saver = CheckpointSaver(str(folder), saved, save_final=True, final_filename=f"{epochs}.pt")
    for each in [handler, *loader, saver]:
        each.attach(trainer)
    trainer.run()
    return SimpleNamespace(student=student, handler=handler)


def test_2_and_2_epochs_are_4(tmp_path):
    whole = run(4, tmp_path / "whole")
    run(2, tmp_path / "parts")
    second = run(4, tmp_path / "parts", load=tmp_path / "parts" / "2.pt")
    assert same(second.student, whole.student)
    assert second.handler.state_dict()["balancer"] == whole.handler.state_dict()["balancer"]
    assert whole.handler.term_weights.balancer.scales["soften"] != whole.handler.term_weights.balancer.first["soften"]


class TestArguments:
    @pytest.mark.parametrize("share", [-1, float("nan"), "0.5", None])
    def test_share(self, share):
        with pytest.raises(ValueError, match="`share` must be a finite number >= 0, but got"):
            GradientShare(share)

    def test_auto_share(self):
        with pytest.raises(ValueError, match="`auto_share` must be a finite number >= 0, but got -1"):
            handler_of(DistillationTerm(soften, "auto"), auto_share=-1)

    def test_other_words(self):
        with pytest.raises(ValueError, match="`weight` must be a finite number >= 0, but got 'automatic'"):
            DistillationTerm(soften, "automatic")
