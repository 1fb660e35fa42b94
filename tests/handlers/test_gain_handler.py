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

"""The line that says what was gained: scores, cache, warnings with reasons, resume."""

from __future__ import annotations

import json
import logging

import pytest
import torch
from monai.engines import SupervisedEvaluator
from monai.handlers import ValidationHandler, from_engine
from monai.handlers.ignite_metric import IgniteMetricHandler
from monai.metrics import CumulativeIterationMetric
from torch.utils.data import DataLoader

from monai_kd.handlers import DistillationTerm, GainHandler
from monai_kd.handlers.gain_handler import validation_cases
from monai_kd.networks.weights_facts import with_facts
from tests.handlers.engine_case import make_data, soften, student_net, teacher_net
from tests.handlers.training import handler_of, make_trainer

pytestmark = pytest.mark.filterwarnings("ignore:the teacher predicted class", "ignore:.*drowns")


class Data(list):
    """A data set as MONAI's, with its items in `data`."""

    @property
    def data(self):
        return list(self)


class Right(CumulativeIterationMetric):
    """The part of the pixels that are predicted right."""

    def _compute_tensor(self, y_pred, y=None):
        return (y_pred.argmax(1, keepdim=True) == y).float().mean(dim=(1, 2, 3)).unsqueeze(1)

    def aggregate(self, *args, **kwargs):
        return torch.as_tensor(self.get_buffer()).mean().item()


class RightHandler(IgniteMetricHandler):
    """Its handler."""

    def __init__(self):
        super().__init__(metric_fn=Right(), output_transform=from_engine(["pred", "label"]))


def make_evaluator(network, key=True):
    data = Data({**item, "case": f"c{i}"} for i, item in enumerate(make_data(4)))
    return SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(data, batch_size=1),
        network=network,
        key_val_metric={"right": RightHandler()} if key else None,
    )


def right(network):
    """The score by hand."""
    data = make_data(4)
    with torch.no_grad():
        found = [(network.eval()(d["image"][None]).argmax(1) == d["label"]).float().mean() for d in data]
    return torch.stack(found).mean().item()


def train(tmp_path, alone=None, epochs=2, cases=True, term=None, remedy=None, network=None):
    student, teacher = student_net(), teacher_net()
    evaluator = make_evaluator(student)
    baseline = tmp_path / "student_alone.pt"
    if alone is not None:
        of_cases = validation_cases(evaluator) if cases else 1
        torch.save(with_facts(student_net().state_dict(), {"score": alone, "cases": of_cases}), baseline)
    distillation = handler_of(term or DistillationTerm(soften, "auto"), teacher=teacher)
    network = network or distillation.teacher.network
    options = {} if remedy is None else {"remedy": remedy}
    gain = GainHandler(evaluator, make_evaluator(network), baseline, tmp_path / "teacher.json", distillation, **options)
    trainer = make_trainer(student, [distillation, ValidationHandler(1, evaluator), gain], epochs=epochs)
    trainer.run()
    return gain, trainer, evaluator


@pytest.fixture(autouse=True)
def _log(caplog):
    caplog.set_level(logging.INFO, logger="monai_kd")


def test_scores_by_hand(tmp_path, caplog):
    gain, _, evaluator = train(tmp_path, alone=0.1)
    assert gain.scores["teacher"] == pytest.approx(right(teacher_net()), abs=1e-6)
    assert gain.scores["distilled"] == pytest.approx(evaluator.state.best_metric)
    assert f"the teacher scores {right(teacher_net()):.3f} (validation)" in caplog.text
    line = caplog.messages[-1]
    expected = gain.scores["distilled"] - 0.1
    assert line.startswith(f"distilled {gain.scores['distilled']:.3f}, alone 0.100 (validation, the file ")
    assert line.endswith(f": {expected:+.3f}")
    assert caplog.records[-1].levelno == logging.INFO


def test_teacher_below_the_student_alone_is_warned_of_first(tmp_path, caplog):
    train(tmp_path, alone=0.999)
    warned = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING and "scores" in r.getMessage()]
    assert "less than the student alone with 0.999" in warned[0]
    assert "train it longer" in warned[0]
    assert caplog.messages[-1].endswith(
        "the teacher scores less than the student alone; train it longer or take a larger one."
    )


@pytest.mark.parametrize(
    ("term", "reason"),
    [
        (DistillationTerm(soften, 0.5), "the weight of soften was chosen by hand"),
        (DistillationTerm(soften, "auto"), "the difference may be chance"),
    ],
)
def test_likely_reason(tmp_path, term, reason):
    gain, _, _ = train(tmp_path, term=term)
    gain.scores = {"teacher": 0.9, "alone": 0.8, "distilled": 0.7}
    assert f"-0.100. Distillation did not help: {reason}" in gain.sentence()[0]
    gain.distillation.term_weights.balancer.damping = 0.5
    assert "the student stopped learning under the terms" in gain.sentence()[0]


def test_without_a_baseline_the_line_says_how_to_get_one(tmp_path, caplog):
    train(tmp_path, remedy="run train_student.yaml")
    assert caplog.messages[-1].endswith("(validation). To see what was gained, run train_student.yaml.")


def test_baseline_of_other_cases_is_not_compared(tmp_path):
    gain, _, _ = train(tmp_path, alone=0.1, cases=False)
    assert "alone" not in gain.scores


class TestCache:
    def test_teacher_is_scored_once(self, tmp_path):
        gain, _, _ = train(tmp_path)
        (key,) = json.loads((tmp_path / "teacher.json").read_text())
        (tmp_path / "teacher.json").write_text(json.dumps({key: 0.123}))
        again, _, _ = train(tmp_path)
        assert again.scores["teacher"] == 0.123
        assert gain.scores["teacher"] != 0.123

    def test_other_weights_are_scored_anew(self, tmp_path):
        train(tmp_path)
        other = teacher_net()
        torch.nn.init.ones_(other.head.weight)
        gain, _, _ = train(tmp_path, network=other)
        assert gain.scores["teacher"] == pytest.approx(right(other), abs=1e-6)
        assert len(json.loads((tmp_path / "teacher.json").read_text())) == 2

    def test_damaged_file_is_measured_anew(self, tmp_path):
        (tmp_path / "teacher.json").write_text("{")
        gain, _, _ = train(tmp_path)
        assert gain.scores["teacher"] == pytest.approx(right(teacher_net()), abs=1e-6)


def test_best_score_is_resumed(tmp_path):
    gain, _, _ = train(tmp_path)
    other = GainHandler(make_evaluator(student_net()))
    other.load_state_dict(gain.state_dict())
    assert other._best == gain._best > 0


def test_evaluator_without_a_key_metric(tmp_path):
    student = student_net()
    evaluator = make_evaluator(student, key=False)
    with pytest.raises(ValueError, match="must have a `key_val_metric`"):
        make_trainer(student, [ValidationHandler(1, evaluator), GainHandler(evaluator)]).run()
