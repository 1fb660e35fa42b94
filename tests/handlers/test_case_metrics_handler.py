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

"""The table of cases against numpy, and its two files."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.engines import SupervisedEvaluator
from monai.handlers import MeanDice, from_engine
from monai.networks.utils import one_hot
from monai.transforms import AsDiscreted
from torch import nn
from torch.utils.data import DataLoader

from monai_kd.handlers import CaseMetricsHandler
from monai_kd.handlers.case_metrics_handler import case_name


class Copy(nn.Module):
    """Predicts what the image holds."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return one_hot(image, 3)


def make_cases() -> list[dict[str, Any]]:
    """Four cases of three classes; the last two have none of class 2, and in the last one it is predicted."""
    draw = np.random.default_rng(0)
    pairs = draw.integers(0, 3, size=(4, 2, 1, 6, 6)).astype(np.float32)
    pairs[2:, 1][pairs[2:, 1] == 2] = 0
    pairs[2, 0][pairs[2, 0] == 2] = 0
    return [
        {"image": torch.from_numpy(pred), "label": torch.from_numpy(label), "case": f"case_{i}"}
        for i, (pred, label) in enumerate(pairs)
    ]


def evaluate(handler: CaseMetricsHandler, cases: list[dict[str, Any]], **kwargs: Any) -> None:
    options = {"include_background": False, "output_transform": from_engine(["pred", "label"])}
    SupervisedEvaluator(
        torch.device("cpu"),
        DataLoader(cases, batch_size=1),
        Copy(),
        postprocessing=AsDiscreted(["pred", "label"], argmax=(True, False), to_onehot=3),
        key_val_metric={"dice": MeanDice(**(options | kwargs))},
        val_handlers=[handler],
    ).run()


def read(folder: Path) -> tuple[list[dict[str, str]], dict[str, Any]]:
    with open(folder / "cases.csv", newline="") as file:
        return list(csv.DictReader(file)), json.loads((folder / "summary.json").read_text())


def dice(pred: np.ndarray, label: np.ndarray) -> float:
    return 2 * (pred & label).sum() / (pred.sum() + label.sum()) if label.any() else float("nan")


def test_rows_and_summary(tmp_path):
    cases = make_cases()
    evaluate(CaseMetricsHandler(tmp_path / "new" / "eval", ["liver", "tumour"], metrics=["dice"]), cases)
    rows, summary = read(tmp_path / "new" / "eval")
    assert list(rows[0]) == ["case", "class", "dice", "label_voxels", "pred_voxels"]
    assert [(row["case"], row["class"]) for row in rows] == [
        (f"case_{i}", name) for i in range(4) for name in ("liver", "tumour")
    ]
    values: dict[str, list[float]] = {"liver": [], "tumour": []}
    for row, (case, index) in zip(rows, [(case, index) for case in cases for index in (1, 2)]):
        pred, label = case["image"].numpy() == index, case["label"].numpy() == index
        expected = dice(pred, label)
        values[row["class"]].append(expected)
        assert (row["dice"] == "") if np.isnan(expected) else (float(row["dice"]) == pytest.approx(expected))
        assert (int(row["pred_voxels"]), int(row["label_voxels"])) == (pred.sum(), label.sum())
    for name, own in values.items():
        found = np.array([value for value in own if not np.isnan(value)])
        entry = summary[name]["dice"]
        assert entry["n"] == len(found) == (4 if name == "liver" else 2)
        assert entry["mean"] == pytest.approx(found.mean())
        assert entry["std"] == pytest.approx(found.std(ddof=1))
        assert entry["median"] == pytest.approx(np.median(found))
    assert (summary["tumour"]["cases"], summary["tumour"]["empty_labels"]) == (4, 2)
    assert summary["tumour"]["false_positive_voxels"] == (cases[3]["image"] == 2).sum() > 0
    assert summary["liver"]["false_positive_voxels"] == 0


def test_class_that_is_in_no_label(tmp_path):
    cases = make_cases()[2:]
    evaluate(CaseMetricsHandler(tmp_path, ["liver", "tumour"], metrics=["dice"]), cases)
    assert read(tmp_path)[1]["tumour"]["dice"] == {"mean": None, "std": None, "median": None, "n": 0}


def test_one_case_has_no_spread(tmp_path):
    evaluate(CaseMetricsHandler(tmp_path, ["liver", "tumour"], metrics=["dice"]), make_cases()[:1])
    assert read(tmp_path)[1]["liver"]["dice"]["std"] == 0.0


def test_second_evaluation_replaces_the_first(tmp_path):
    handler = CaseMetricsHandler(str(tmp_path), ["liver", "tumour"], metrics=["dice"])
    evaluate(handler, make_cases())
    evaluate(handler, make_cases()[:1])
    assert len(read(tmp_path)[0]) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cases.csv", "summary.json"]


@pytest.mark.parametrize(
    ("item", "name"),
    [
        ({"case": 7, "image": torch.zeros(1)}, "7"),
        ({"image": MetaTensor(torch.zeros(1), meta={"filename_or_obj": "/data/case_3.nii.gz"})}, "case_3"),
        ({"image": MetaTensor(torch.zeros(1), meta={"filename_or_obj": "/data/series_9"})}, "series_9"),
        ({"image": torch.zeros(1)}, "unknown"),
    ],
)
def test_name_of_a_case(item, name):
    assert case_name(item) == name


class TestRefuses:
    def test_no_class(self, tmp_path):
        with pytest.raises(ValueError, match="`classes` must name at least one foreground class, but got none"):
            CaseMetricsHandler(tmp_path, [])

    def test_other_number_of_classes(self, tmp_path):
        with pytest.raises(ValueError, match=r"`classes` must name the 2 classes of `dice`, but got \['liver'\]"):
            evaluate(CaseMetricsHandler(tmp_path, ["liver"], metrics=["dice"]), make_cases())
        assert not (tmp_path / "cases.csv").exists()

    def test_metric_without_details(self, tmp_path):
        handler = CaseMetricsHandler(tmp_path, ["liver", "tumour"], metrics=["dice"])
        with pytest.raises(ValueError, match=r"`dice` must be a metric with `save_details=True`, but got \[\]"):
            evaluate(handler, make_cases(), save_details=False)
