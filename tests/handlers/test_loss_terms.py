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

"""What MONAI's loggers show, each by itself: what was handed over, under which names."""

from __future__ import annotations

import re
from collections import defaultdict
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from monai.handlers import MLFlowHandler, StatsHandler, TensorBoardStatsHandler

from monai_kd.handlers import DistillationTerm, loss_terms
from tests.handlers.engine_case import hint, soften, student_net
from tests.handlers.training import distil

pytestmark = pytest.mark.filterwarnings("ignore:.*drowns the supervised loss:UserWarning")
NAMES = {"loss", "loss_supervised", "loss_soften", "loss_soften_weighted", "loss_hint", "loss_hint_weighted"}
RATIOS = {"gradient_ratio_soften", "gradient_ratio_hint"}


@pytest.fixture
def terms() -> list[DistillationTerm]:
    return [DistillationTerm(soften, 0.5), DistillationTerm(hint, 0.001)]


class FakeWriter:
    """Keeps what TensorBoard would be given."""

    def __init__(self) -> None:
        self.values: dict[str, dict[int, float]] = defaultdict(dict)

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.values[name][step] = value

    def flush(self) -> None:
        """Nothing waits."""


class FakeClient:
    """Keeps what MLflow would be given; a real one takes a minute to make its database."""

    def __init__(self, tracking_uri: str) -> None:
        self.values: dict[str, list[float]] = defaultdict(list)

    def get_experiment_by_name(self, name: str) -> Any:
        return SimpleNamespace(experiment_id="1", lifecycle_stage="active")

    def search_runs(self, experiment_id: str) -> list:
        return []

    def create_run(self, experiment_id: str, run_name: str) -> Any:
        return SimpleNamespace(info=SimpleNamespace(run_id="1", run_name=run_name))

    def get_run(self, run_id: str) -> Any:
        return SimpleNamespace(data=SimpleNamespace(params={}))

    def log_batch(self, run_id: str, metrics: list, params: list, tags: list) -> None:
        for metric in metrics:
            self.values[metric.key].append(metric.value)


def test_the_parts_are_of_the_output_and_add_up(terms):
    _, trainer = distil(student_net(), terms, supervised_weight=0.5)
    values = loss_terms(trainer.state.output)
    assert set(values) == NAMES
    assert all(type(value) is float for value in values.values())
    assert values["loss_soften_weighted"] == pytest.approx(0.5 * values["loss_soften"])
    total = 0.5 * values["loss_supervised"] + values["loss_soften_weighted"] + values["loss_hint_weighted"]
    assert values["loss"] == pytest.approx(total)
    assert values["loss_hint"] > 0


@pytest.mark.parametrize("decollate", [True, False])
def test_is_the_same_before_and_after_decollation(terms, decollate):
    _, trainer = distil(student_net(), terms, monitor_interval=1, decollate=decollate)
    assert isinstance(trainer.state.output, list) is decollate
    assert set(loss_terms(trainer.state.output)) == NAMES | RATIOS


def test_takes_losses_and_ratios_alone():
    output = {"image": torch.zeros(1, 4, 4), "pred": None, "loss": torch.tensor(1.5), "gradient_ratio_kd": 2}
    assert loss_terms(output) == {"loss": 1.5, "gradient_ratio_kd": 2.0}
    assert loss_terms((output, None)) == {"loss": 1.5, "gradient_ratio_kd": 2.0}


def test_stats_handler(terms, capsys):
    distil(student_net(), terms, handlers=[StatsHandler(name="stats", output_transform=loss_terms)], epochs=1)
    lines = [line for line in capsys.readouterr().out.splitlines() if "Iter:" in line]
    assert len(lines) == 4
    assert set(re.findall(r"(\w+): \d+\.\d+", lines[0])) == NAMES | RATIOS
    assert set(re.findall(r"(\w+): \d+\.\d+", lines[1])) == NAMES


def test_tensorboard(terms):
    writer = FakeWriter()
    _, trainer = distil(
        student_net(),
        terms,
        monitor_interval=4,
        handlers=[TensorBoardStatsHandler(summary_writer=writer, output_transform=loss_terms)],
    )
    assert set(writer.values) >= NAMES | RATIOS
    assert list(writer.values["loss_soften"]) == list(range(1, 9))
    assert list(writer.values["gradient_ratio_soften"]) == [1, 5]
    assert writer.values["loss_hint_weighted"][8] == loss_terms(trainer.state.output)["loss_hint_weighted"]


def test_mlflow(terms, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setattr("mlflow.MlflowClient", FakeClient)
    handler = MLFlowHandler(tracking_uri="https://localhost", output_transform=loss_terms)
    _, trainer = distil(student_net(), terms, monitor_interval=4, handlers=[handler])
    assert set(handler.client.values) >= NAMES | RATIOS
    assert len(handler.client.values["loss_soften"]) == 8
    assert len(handler.client.values["gradient_ratio_soften"]) == 2
    assert handler.client.values["loss_hint_weighted"][-1] == loss_terms(trainer.state.output)["loss_hint_weighted"]
