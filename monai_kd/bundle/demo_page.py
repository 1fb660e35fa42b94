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

"""What the demo says: a sentence of what was gained, the page and ``demo.json``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from torch import nn

from monai_kd.bundle.demo_cases import SIZE
from monai_kd.bundle.demo_training import predict
from monai_kd.data.write_aside import replace_file
from monai_kd.report import (
    CaseMetrics,
    OverlayCase,
    PairedTest,
    Table,
    cost_table,
    network_cost,
    overlay,
    paired_table,
    paired_test,
    summary_table,
    values_by_class,
)

NAMES = ("teacher", "alone", "distilled")
LEVEL = 0.05  # of significance
CONVERGED = 0.005  # Dice that the last fifth of the epochs may still gain


@dataclass
class Gain:
    """
    What distillation gained on the test cases.

    Args:
        dice: of ``teacher``, ``alone`` and ``distilled``, the mean over classes and cases.
        test: of distilled against alone, case by case.
        smaller: weights of the teacher for each weight of the student.
        unconverged: Dice that the distilled student gained in the last fifth of its epochs.
    """

    dice: dict[str, float]
    test: PairedTest
    smaller: float
    unconverged: float

    @property
    def sentence(self) -> str:
        """What was gained, with the reason and a remedy where it is nothing."""
        dice, test = self.dice, self.test
        numbers = (
            f"distilled {dice['distilled']:.3f}, alone {dice['alone']:.3f}, "
            f"teacher {dice['teacher']:.3f} with {self.smaller:.0f} times more weights; "
            f"{test.n} test cases, p = {test.p_value:.2g}"
        )
        if test.difference > 0 and test.p_value < LEVEL:
            return f"Distillation gained {test.difference:.3f} Dice: {numbers}."
        reason, remedy = self._why()
        if test.p_value < LEVEL:
            verdict = f"Distillation cost {-test.difference:.3f} Dice"
        else:
            verdict = f"Distillation gained nothing that is certain ({test.difference:+.3f} Dice)"
        return f"{verdict}: {numbers}. Likely reason: {reason}; {remedy}."

    def _why(self) -> tuple[str, str]:
        dice = self.dice
        if dice["teacher"] < dice["alone"] + 0.02:
            return (
                "the teacher is hardly better than the student alone",
                "give it more cases (`--num_cases`) and training (`--epochs`)",
            )
        if self.unconverged > CONVERGED:
            return (
                f"the last fifth of the epochs still gained {self.unconverged:.3f}",
                "train longer (`--epochs`)",
            )
        if self.test.difference > 0:
            return "too few test cases for the difference", "take more (`--num_cases`)"
        return (
            "the unlabelled cases are too few to learn more from than the labels",
            "take more (`--num_cases`)",
        )


def last_fifth(curve: Sequence[float]) -> float:
    """What the last fifth of the epochs gained over the best before; 0 for a single epoch."""
    tail = max(1, len(curve) // 5)
    before = curve[:-tail]
    return max(curve) - max(before) if before else 0.0


def gain_of(
    runs: Mapping[str, Sequence[CaseMetrics]],
    networks: Mapping[str, nn.Module],
    curve: Sequence[float],
) -> Gain:
    """Compare the three networks on the test cases."""
    scores = {name: _scores(runs[name]) for name in NAMES}
    sizes = {name: _size(networks[name]) for name in NAMES}
    return Gain(
        dice={name: fmean(values) for name, values in scores.items()},
        test=paired_test(scores["alone"], scores["distilled"]),
        smaller=sizes["teacher"] / sizes["distilled"],
        unconverged=last_fifth(curve),
    )


def _scores(cases: Sequence[CaseMetrics]) -> list[float]:
    """The Dice of each case, the mean over its classes."""
    return list(values_by_class(cases, "dice")["mean of classes"].values())


def _size(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def pictures(
    networks: Mapping[str, nn.Module],
    cases: Sequence[Mapping[str, Any]],
) -> dict[str, bytes]:
    """The outlines of the label and of what the networks predict."""
    rows = []
    for case in cases:
        predictions = {}
        for name in NAMES:
            logits = predict(networks[name], case["image"][None])
            predictions[name] = logits.argmax(dim=1)[0].numpy()
        image, label = case["image"][0].numpy(), case["label"][0].numpy()
        rows.append(OverlayCase(case["case"], image, label, predictions))
    caption = f"Label and predictions of {len(rows)} test cases: liver outside, tumors inside"
    return {caption: overlay(rows, window=(0, 1))}


def tables(
    runs: Mapping[str, Sequence[CaseMetrics]],
    networks: Mapping[str, nn.Module],
) -> list[Table]:
    """Metrics, the paired test and what the networks cost."""
    pair = {name: runs[name] for name in ("alone", "distilled")}
    shape = (1, 1, SIZE, SIZE)
    sizes = {
        "teacher": network_cost(networks["teacher"], shape),
        "student": network_cost(networks["distilled"], shape),
    }
    return [
        summary_table(runs, metrics=("dice", "rvd")),
        paired_table(pair),
        cost_table(sizes),
    ]


def write_json(path: Path, gain: Gain, seconds: float) -> None:
    """The means as numbers, for scripts."""
    values = {name: round(gain.dice[name], 6) for name in NAMES}
    content = values | {"seconds": round(seconds, 1)}
    replace_file(path, json.dumps(content, indent=1) + "\n")
