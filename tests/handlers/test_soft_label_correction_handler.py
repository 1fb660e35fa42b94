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

"""Correction inside a trainer: against the loop by hand, what the terms see, what is logged, what is refused."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.data import MetaTensor
from monai.engines.utils import IterationEvents
from monai.handlers import CheckpointSaver, StatsHandler
from torch import nn
from torch.nn import functional as F

from monai_kd.corrections import AssistantCorrection, SimilarityCorrection
from monai_kd.handlers import DistillationHandler, DistillationTerm, SoftLabelCorrectionHandler
from monai_kd.losses import KDLoss
from monai_kd.networks import Teacher, TeacherTeam
from tests.handlers.engine_case import (
    Net,
    hint,
    make_batches,
    make_data,
    same,
    seeded,
    soften,
    student_net,
    teacher_net,
)
from tests.handlers.training import On, handler_of, loop_by_hand, make_trainer, sgd

pytestmark = pytest.mark.filterwarnings("ignore:.*drowns the supervised loss:UserWarning")


def assistant_net(seed: int = 5, **kwargs: Any) -> Any:
    """Another network of the task."""
    return seeded(lambda: Net(**kwargs), seed).eval()


def seen_by(terms: list[Any]) -> Callable[..., torch.Tensor]:
    """A loss that notes the teacher's logits and the label."""

    def loss(student: torch.Tensor, teacher: torch.Tensor, label: Any) -> torch.Tensor:
        terms.append((teacher.clone(), label))
        return soften(student, teacher)

    return loss


def correct(
    student: nn.Module,
    corrections: Any,
    terms: Sequence[DistillationTerm] = (),
    teacher: Any = None,
    between: Sequence[Any] = (),
    after: Sequence[Any] = (),
    **kwargs: Any,
) -> Any:
    """Train with a correction; returns the trainer."""
    distillation = handler_of(*(terms or [DistillationTerm(soften)]), teacher=teacher)
    handlers = [distillation, *between, SoftLabelCorrectionHandler(corrections), *after]
    trainer = make_trainer(student, handlers, **kwargs)
    trainer.run()
    return trainer


def by_hand(logits: torch.Tensor, assistants: Sequence[nn.Module], image: torch.Tensor, label: torch.Tensor) -> Any:
    """The soft label with false pixels replaced by what each assistant says, and how many are false after each."""
    soft_label, counts = logits.softmax(1), []
    for network in [*assistants, None]:
        false = soft_label.argmax(1, keepdim=True) != label
        counts.append(int(false.sum()))
        if network is not None:
            with torch.no_grad():
                soft_label = torch.where(false, network(image).softmax(1), soft_label)
    return soft_label, counts


class TestTraining:
    @pytest.mark.parametrize("temperature", [1.0, 4.0])
    def test_equals_the_loop_by_hand(self, temperature):
        """Eq. 1 with T + TA_f + TA_b written out: cross entropy of roots of the corrected probabilities."""
        student, other, batches = student_net(), student_net(), make_batches() * 2
        networks = [assistant_net(5), assistant_net(6)]
        terms = [DistillationTerm(KDLoss(temperature=temperature), weight=0.7)]
        optimizer = sgd(student.parameters())
        correct(student, list(map(AssistantCorrection, networks)), terms, optimizer=optimizer)
        images = iter([batch["image"] for batch in batches])

        def distillation(s: Any, t: Any, label: torch.Tensor, time: float) -> list[torch.Tensor]:
            soft_label, _ = by_hand(t["head"].detach(), networks, next(images), label)
            target = soft_label ** (1 / temperature)
            target = target / target.sum(1, keepdim=True)
            log_student = (s["head"] / temperature).log_softmax(1)
            return [0.7 * temperature**2 * (target * (target.log() - log_student)).sum(1).mean()]

        loop_by_hand(other, teacher_net(), distillation, make_optimizer=sgd)
        for one, two in zip(student.parameters(), other.parameters()):
            torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)
        assert not same(student, student_net())

    def test_what_is_right_is_not_touched(self):
        """A correction that changes nothing is none, bit for bit."""
        alone, corrected = student_net(), student_net()
        make_trainer(alone, [handler_of(DistillationTerm(soften))]).run()
        correct(corrected, [lambda soft_label, image, label: soft_label])
        assert same(alone, corrected)

    def test_mixed_precision_is_the_trainers(self, monkeypatch):
        autocast, scaler, kinds = torch.autocast, torch.amp.GradScaler, []
        monkeypatch.setattr(
            torch, "autocast", lambda device, **kw: autocast(**({"device_type": "cpu", "dtype": torch.bfloat16} | kw))
        )
        monkeypatch.setattr(torch.cuda.amp, "GradScaler", lambda: scaler("cpu", init_scale=1024.0))
        network, seen = assistant_net(), []
        network.register_forward_hook(lambda module, inputs, output: kinds.append(output.dtype))
        terms = [DistillationTerm(seen_by(seen))]
        trainer = correct(student_net(), [AssistantCorrection(network), SimilarityCorrection()], terms, amp=True)
        assert set(kinds) == {torch.bfloat16}
        assert {logits.dtype for logits, _ in seen} == {torch.float32}
        assert trainer.state.metrics["false_pixels_similarity"] == 0

    def test_metatensors_are_equal_to_tensors(self):
        plain, with_meta = student_net(), student_net()
        parts = [AssistantCorrection(assistant_net()), SimilarityCorrection()]
        data = [{key: MetaTensor(value) for key, value in item.items()} for item in make_data()]
        correct(plain, parts)
        correct(with_meta, parts, data=data)
        assert same(plain, with_meta)

    def test_attach_twice_is_once(self):
        once, twice, counts = student_net(), student_net(), []
        for student, times in ((once, 1), (twice, 2)):
            handler = SoftLabelCorrectionHandler([AssistantCorrection(assistant_net())])
            trainer = make_trainer(student, [handler_of(DistillationTerm(soften)), *[handler] * times])
            trainer.run()
            counts.append(trainer.state.metrics["false_pixels_assistant"])
        assert same(once, twice)
        assert counts[0] == counts[1]

    def test_second_run_counts_anew(self):
        student = student_net()
        trainer = correct(student, [SimilarityCorrection()], epochs=1)
        first = trainer.state.metrics["false_pixels_teacher"]
        trainer.state.max_epochs = 2
        trainer.run()
        assert trainer.state.metrics["false_pixels_teacher"] == first


class TestWhatTermsSee:
    @pytest.mark.parametrize("classes", [1, 2, 3])
    @pytest.mark.parametrize("dims", [2, 3])
    @pytest.mark.filterwarnings("ignore:the teacher predicted class:UserWarning")
    def test_all_correct_and_right_pixels_bit_identical(self, classes, dims):
        size = {"length": 4, "size": 16 if dims == 2 else 6, "dims": dims, "classes": max(2, classes)}
        net = {"classes": classes, "dims": dims}
        corrected, before = [], []
        parts = [AssistantCorrection(assistant_net(**net)), SimilarityCorrection()]
        for into, corrections in ((before, [lambda soft_label, *_: soft_label]), (corrected, parts)):
            correct(
                student_net(**net),
                corrections,
                [DistillationTerm(seen_by(into))],
                teacher_net(**net),
                data=make_data(**size),
                epochs=1,
                loss_function=lambda logits, label: logits.square().mean(),
            )
        for (repaired, label), (teacher, _) in zip(corrected, before, strict=True):
            label = label.as_tensor() if isinstance(label, MetaTensor) else label
            predicted = (repaired > 0) if classes == 1 else repaired.argmax(1, keepdim=True)
            assert torch.equal(predicted.float(), label)
            right = ((teacher > 0) if classes == 1 else teacher.argmax(1, keepdim=True)).float() == label
            assert right.any()
            assert not right.all()
            assert torch.equal(repaired[right.expand_as(repaired)], teacher[right.expand_as(teacher)])

    def test_every_image_all_wrong_all_right_or_of_one_class(self):
        oracle = nn.Conv2d(1, 2, 1)
        nn.init.constant_(oracle.bias, 0)
        oracle.weight.data = torch.tensor([-5.0, 5.0]).view(2, 1, 1, 1)
        for sign in (1, -1):
            network = copy.deepcopy(oracle)
            network.weight.data *= sign
            data = make_data(4)
            data[0]["label"].zero_()
            data[1]["label"].fill_(1)
            seen: list[Any] = []
            correct(student_net(), [SimilarityCorrection()], [DistillationTerm(seen_by(seen))], network, data=data)
            for logits, label in seen:
                assert torch.isfinite(logits).all()
                assert torch.equal(logits.argmax(1, keepdim=True).float(), label)

    def test_one_hot_label_is_the_same(self):
        students, data = [student_net(), student_net()], make_data()
        one_hot = [item | {"label": torch.cat([1 - item["label"], item["label"]])} for item in data]
        for student, items in zip(students, (data, one_hot)):
            correct(
                student,
                [AssistantCorrection(assistant_net()), SimilarityCorrection()],
                data=items,
                loss_function=lambda logits, label: logits.square().mean(),
            )
        assert same(*students)

    def test_other_scales_of_the_teacher_are_dropped(self):
        class Scales(nn.Conv2d):
            def forward(self, image: torch.Tensor) -> Any:
                logits = super().forward(image)
                return [logits, logits[..., ::2, ::2]]

        seen: list[Any] = []
        terms = [DistillationTerm(seen_by(seen), outputs="all")]
        correct(student_net(scales=2), [SimilarityCorrection()], terms, seeded(lambda: Scales(1, 2, 1)), epochs=1)
        assert {tuple(logits.shape) for logits, _ in seen} == {(2, 2, 16, 16)}
        assert all(torch.equal(logits.argmax(1, keepdim=True).float(), label) for logits, label in seen)

    def test_a_member_of_a_team_is_left_alone(self):
        member, whole = [], []
        team = TeacherTeam({"one": Teacher(teacher_net()), "other": Teacher(assistant_net())})
        terms = [DistillationTerm(seen_by(member), teacher="one", name="one"), DistillationTerm(seen_by(whole))]
        correct(student_net(), [SimilarityCorrection()], terms, team, epochs=1)
        for (logits, label), batch in zip(member, make_batches(), strict=True):
            assert torch.equal(logits, teacher_net().eval()(batch["image"]))
            assert not torch.equal(logits.argmax(1, keepdim=True).float(), label)
        assert all(torch.equal(logits.argmax(1, keepdim=True).float(), label) for logits, label in whole)

    def test_one_of_two_handlers_alone(self):
        seen: dict[str, list[Any]] = {"first": [], "second": []}
        handlers = {
            name: handler_of(DistillationTerm(seen_by(into), name=name), teacher=teacher_net())
            for name, into in seen.items()
        }
        correction = SoftLabelCorrectionHandler([SimilarityCorrection()], distillation=handlers["second"])
        make_trainer(student_net(), [*handlers.values(), correction], epochs=1).run()
        right = {
            name: all(torch.equal(logits.argmax(1, keepdim=True).float(), label) for logits, label in each)
            for name, each in seen.items()
        }
        assert right == {"first": False, "second": True}

    def test_assistant_with_an_image_of_its_own(self):
        network, seen = assistant_net(), []
        network.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].clone()))
        data = [item | {"bright": item["image"] + 1} for item in make_data()]
        correct(student_net(), [AssistantCorrection(Teacher(network, image_key="bright"))], data=data, epochs=1)
        for image, batch in zip(seen, make_batches(), strict=True):
            assert torch.equal(image, batch["image"] + 1)


class TestAssistants:
    def test_stay_frozen_and_out_of_every_checkpoint(self, tmp_path):
        network = seeded(lambda: Net(dropout=0.5), 5)
        state = copy.deepcopy(network.state_dict())
        student = student_net()
        handler = SoftLabelCorrectionHandler([AssistantCorrection(network)])
        trainer = make_trainer(student, [handler_of(DistillationTerm(soften)), handler])
        saved = {"network": student, "optimizer": trainer.optimizer, "trainer": trainer}
        CheckpointSaver(str(tmp_path), saved, save_final=True, final_filename="end.pt").attach(trainer)
        modes: list[bool] = []
        On(IterationEvents.LOSS_COMPLETED, lambda engine: modes.append(network.training)).attach(trainer)
        network.train()
        trainer.run()
        assert modes == [False] * 8
        assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())
        assert all(parameter.grad is None and not parameter.requires_grad for parameter in network.parameters())
        content = torch.load(tmp_path / "end.pt", weights_only=True)
        assert list(content["network"]) == list(student.state_dict())
        assert not hasattr(handler, "state_dict")

    def test_weights_come_from_a_file_without_code(self, tmp_path):
        torch.save({"model": assistant_net().state_dict()}, tmp_path / "assistant.pt")
        torch.save({"model": assistant_net()}, tmp_path / "pickle.pt")
        students = [student_net(), student_net()]
        correct(students[0], [AssistantCorrection(assistant_net())])
        correct(students[1], [AssistantCorrection(lambda: Net(), tmp_path / "assistant.pt")])
        assert same(*students)
        with pytest.raises(ValueError, match="must hold weights alone, but got .*pickle.pt, which needs code"):
            AssistantCorrection(Net(), tmp_path / "pickle.pt")


class TestLog:
    def test_counts_are_the_means_of_the_epoch(self):
        networks, seen = [assistant_net(5), assistant_net(6)], []
        parts = {"false_pixel": AssistantCorrection(networks[0]), "boundary": AssistantCorrection(networks[1])}
        epochs: list[dict[str, float]] = []
        watch = On(Events.EPOCH_COMPLETED, lambda engine: epochs.append(dict(engine.state.metrics)))
        correct(
            student_net(),
            parts | {"similarity": SimilarityCorrection()},
            [DistillationTerm(seen_by(seen))],
            after=[watch],
            data=make_data(7),  # the last batch is of one image
        )
        teacher, totals = teacher_net().eval(), torch.zeros(3)
        for batch in make_batches(length=7):
            with torch.no_grad():
                totals += torch.tensor(by_hand(teacher(batch["image"]), networks, batch["image"], batch["label"])[1])
        means = dict(zip(("teacher", "false_pixel", "boundary"), (totals / 7).tolist())) | {"similarity": 0.0}
        assert means["teacher"] > means["false_pixel"] > means["boundary"] > 0
        for metrics in epochs:
            assert metrics == pytest.approx({f"false_pixels_{name}": value for name, value in means.items()})
        assert len(epochs) == 2

    def test_stats_handler_prints_them(self, capsys):
        correct(
            student_net(),
            [AssistantCorrection(assistant_net()), SimilarityCorrection()],
            after=[StatsHandler(name="corrections", iteration_log=False)],
        )
        lines = [line for line in capsys.readouterr().out.splitlines() if "Metrics --" in line]
        assert len(lines) == 2
        values = dict(re.findall(r"false_pixels_(\w+): (\d+\.\d+)", lines[1]))
        assert set(values) == {"teacher", "assistant", "similarity"}
        assert float(values["teacher"]) > float(values["assistant"]) > float(values["similarity"]) == 0


class TestGuards:
    @staticmethod
    def run(handlers: Sequence[Any], **kwargs: Any) -> None:
        student = student_net()
        trainer = make_trainer(student, handlers, **kwargs)
        try:
            trainer.run()
        finally:
            pairs = zip(student.parameters(), student_net().parameters())
            assert all(torch.equal(one, other) for one, other in pairs)  # nothing was trained

    def test_without_distillation(self):
        with pytest.raises(ValueError, match="must hold a `DistillationHandler`, .* but got .* alone; put one before"):
            self.run([SoftLabelCorrectionHandler([SimilarityCorrection()])])

    def test_before_distillation(self):
        handlers = [SoftLabelCorrectionHandler([SimilarityCorrection()]), handler_of(DistillationTerm(soften))]
        with pytest.raises(ValueError, match="must be attached after the `DistillationHandler` .* exchange them"):
            self.run(handlers)

    def test_beside_two(self):
        handlers = [handler_of(DistillationTerm(soften, name=name)) for name in ("kd", "other")]
        with pytest.raises(ValueError, match=r"None for 2 handlers with the terms \['kd'\] and \['other'\]; pass one"):
            self.run([*handlers, SoftLabelCorrectionHandler([SimilarityCorrection()])])

    def test_beside_a_stranger(self):
        stranger = handler_of(DistillationTerm(soften, name="far"))
        handlers = [
            handler_of(DistillationTerm(soften)),
            SoftLabelCorrectionHandler([SimilarityCorrection()], stranger),
        ]
        with pytest.raises(ValueError, match=r"but got one with the terms \['far'\] that is not attached to it"):
            self.run(handlers)

    def test_no_term_that_it_could_help(self):
        team = TeacherTeam({"one": Teacher(teacher_net())})
        terms = [DistillationTerm(hint, 1.0, "norm", "norm", nn.Conv2d(4, 6, 1), teacher="one")]
        terms.append(DistillationTerm(soften, teacher="one"))
        handlers = [DistillationHandler(team, terms), SoftLabelCorrectionHandler([SimilarityCorrection()])]
        with pytest.raises(ValueError, match=r"but got \['hint', 'soften'\], on which a correction has no effect"):
            self.run(handlers)

    def test_no_label(self):
        handlers = [handler_of(DistillationTerm(soften)), SoftLabelCorrectionHandler([SimilarityCorrection()])]
        with pytest.raises(ValueError, match="`label` must come with each batch .*, but got NoneType"):
            self.run(handlers, prepare_batch=lambda batch, *_, **__: (batch["image"], None))

    def test_label_of_more_classes(self):
        data = make_data(classes=3)
        handlers = [handler_of(DistillationTerm(soften)), SoftLabelCorrectionHandler([SimilarityCorrection()])]
        message = "correction `similarity`: `label` must hold whole class indices from 0 to 1, but got 2"
        with pytest.raises(ValueError, match=message):
            self.run(handlers, data=data)

    def test_assistant_of_other_classes(self):
        parts = {"boundary": AssistantCorrection(assistant_net(classes=3))}
        handlers = [handler_of(DistillationTerm(soften)), SoftLabelCorrectionHandler(parts)]
        with pytest.raises(ValueError, match=r"correction `boundary`: .* got \(2, 3, 16, 16\) and \(2, 2, 16, 16\)"):
            self.run(handlers)

    def test_assistant_that_is_the_student(self):
        student = student_net()
        parts = [AssistantCorrection(student)]
        trainer = make_trainer(student, [handler_of(DistillationTerm(soften)), SoftLabelCorrectionHandler(parts)])
        with pytest.raises(ValueError, match="must not share weights or buffers with the student"):
            trainer.run()

    def test_batch_without_the_assistants_image(self):
        parts = [AssistantCorrection(Teacher(assistant_net(), image_key="bright"))]
        handlers = [handler_of(DistillationTerm(soften)), SoftLabelCorrectionHandler(parts)]
        with pytest.raises(
            ValueError, match=r"must be an entry of the batch, but got `bright` of \['image', 'label'\]"
        ):
            self.run(handlers)

    def test_trainer_without_the_events(self):
        with pytest.raises(ValueError, match="with `iteration_update`, which replaces the step"):
            make_trainer(
                student_net(),
                [SoftLabelCorrectionHandler([SimilarityCorrection()])],
                iteration_update=lambda engine, batch: {},
            )


def test_term_on_a_layer_sees_what_it_saw():
    maps: list[torch.Tensor] = []

    def note(student: torch.Tensor, teacher: torch.Tensor, label: Any) -> torch.Tensor:
        maps.append(teacher.clone())
        return F.mse_loss(student, teacher)

    for corrections in ([SimilarityCorrection()], [lambda soft_label, *_: soft_label]):
        layer = DistillationTerm(note, 0.0, "norm", "norm", nn.Conv2d(4, 6, 1), name="layer")
        correct(student_net(), corrections, [DistillationTerm(soften), layer], epochs=1)
    assert len(maps) == 8
    assert all(torch.equal(one, other) for one, other in zip(maps[:4], maps[4:]))
