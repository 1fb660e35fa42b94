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

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator
from monai.transforms import AsDiscreted, Compose, CopyItemsd

from monai_kd.handlers import FrameTableHandler


def frame(probability: float, height: int = 2) -> torch.Tensor:
    image = torch.full((1, 4, 5), 0.1)
    image[:, :height, :2] = probability
    return image


def segment(path: Path, frames: dict[str, torch.Tensor], batch_size: int = 1, post: Any = None) -> None:
    """An evaluator whose network gives the frame itself as the probabilities."""
    items = [{"image": image, "case": name} for name, image in frames.items()]
    both = Compose([CopyItemsd("pred", names="probability"), AsDiscreted("pred", threshold=0.5)])
    SupervisedEvaluator(
        torch.device("cpu"),
        DataLoader(Dataset(items), batch_size=batch_size),
        torch.nn.Identity(),
        postprocessing=post or both,
        val_handlers=[FrameTableHandler(path)],
    ).run()


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_row_for_each_frame(tmp_path, batch_size):
    path = tmp_path / "eval" / "frames.csv"
    segment(path, {"a": frame(0.9), "b": frame(0.4), "ü": frame(0.75, height=4)}, batch_size)
    columns = ["frame", "height", "width", "foreground_pixels", "foreground_share", "highest_probability"]
    wanted = [
        ["a", "4", "5", "4", "0.2", "0.9"],
        ["b", "4", "5", "0", "0.0", "0.4"],
        ["ü", "4", "5", "8", "0.4", "0.75"],
    ]
    assert rows(path) == [dict(zip(columns, values, strict=True)) for values in wanted]


def test_rows_until_a_failure_are_kept(tmp_path):
    bad = frame(0.9)
    bad[0, 0, 0] = float("nan")

    def post(item: dict[str, Any]) -> dict[str, Any]:
        if bool(item["pred"].isnan().any()):
            raise RuntimeError("broken frame")
        return item | {"probability": item["pred"], "pred": (item["pred"] > 0.5).float()}

    with pytest.raises(RuntimeError):
        segment(tmp_path / "frames.csv", {"a": frame(0.9), "b": bad, "c": frame(0.9)}, post=post)
    assert [row["frame"] for row in rows(tmp_path / "frames.csv")] == ["a"]


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_probability_that_is_none(tmp_path, value):
    bad = frame(0.9)
    bad[0, 0, 0] = float(value)
    with pytest.raises(ValueError, match=f"must be finite, but got {value} on 1 pixels of frame b, .*amp"):
        segment(tmp_path / "frames.csv", {"a": frame(0.9), "b": bad})
    assert [row["frame"] for row in rows(tmp_path / "frames.csv")] == ["a"]


def test_another_run_replaces_the_file_only_when_it_has_a_frame(tmp_path):
    path = tmp_path / "frames.csv"
    segment(path, {"a": frame(0.9), "b": frame(0.9)})
    with pytest.raises(ValueError, match=r"`probability` must be a map \(1, H, W\) of the output, but got none"):
        segment(path, {"c": frame(0.9)}, post=AsDiscreted("pred", threshold=0.5))
    assert [row["frame"] for row in rows(path)] == ["a", "b"]
    segment(path, {"c": frame(0.9)})
    assert [row["frame"] for row in rows(path)] == ["c"]
