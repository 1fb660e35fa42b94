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

"""One table of all cases, classes and metrics, and their summary."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.config import PathLike
from monai.utils import convert_to_numpy


def write_case_report(
    folder: PathLike,
    cases: Sequence[str],
    details: Mapping[str, torch.Tensor | np.ndarray],
    class_names: Sequence[str] | None = None,
) -> dict[str, Any]:
    """
    Writes ``cases.csv``, one row for each case and class with a column for each metric, and ``summary.json``, for each
    class and metric the number, mean, standard deviation, median, least and largest value of the cases that have one.

    :py:class:`monai.handlers.MetricsSaver` writes a file for each metric and no JSON; a paired test between two runs
    wants one table.

    Args:
        folder: where to write; made when absent.
        cases: name of each case.
        details: values (cases, classes) by name of the metric, as ``engine.state.metric_details`` holds them; NaN where
            a case has none (its label is empty).
        class_names: names of the classes; default "class1" and so on, for metrics without background.

    Returns:
        the content of ``summary.json``: ``{class: {metric: {"n", "empty", "mean", "std", "median", "min", "max"}}}``,
        `empty` being the cases without value, `std` the population's; None where no case has a value.

    Raises:
        ValueError: when a metric's values do not fit the cases or the classes.

    Example::

        >>> import tempfile
        >>> report = write_case_report(tempfile.mkdtemp(), ["a", "b"], {"dice": np.array([[0.75], [0.25]])}, ["liver"])
        >>> report["liver"]["dice"]["mean"]
        0.5
    """
    tables = {name: np.asarray(convert_to_numpy(values), dtype=np.float64) for name, values in details.items()}
    for name, table in tables.items():
        if table.ndim != 2 or len(table) != len(cases):
            raise ValueError(f"`{name}` must have {len(cases)} cases x classes, but got shape {table.shape}.")
    widths = {table.shape[1] for table in tables.values()}
    names = list(class_names or [f"class{number + 1}" for number in range(max(widths, default=0))])
    if widths - {len(names)}:
        raise ValueError(f"`class_names` must name the classes of all metrics, but got {names} and {sorted(widths)}.")
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    with (path / "cases.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["case", "class", *tables])
        for row, case in enumerate(cases):
            for column, name in enumerate(names):
                writer.writerow([case, name, *(_text(table[row, column]) for table in tables.values())])
    summary = {
        name: {metric: _summary(table[:, column]) for metric, table in tables.items()}
        for column, name in enumerate(names)
    }
    (path / "summary.json").write_text(json.dumps(summary, indent=2) + "\n")
    return summary


def _text(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.6g}"


def _summary(values: np.ndarray) -> dict[str, float | int | None]:
    valid = values[~np.isnan(values)]
    counts: dict[str, float | int | None] = {"n": len(valid), "empty": len(values) - len(valid)}
    for name, function in (("mean", np.mean), ("std", np.std), ("median", np.median), ("min", np.min), ("max", np.max)):
        counts[name] = float(function(valid)) if len(valid) else None
    return counts
