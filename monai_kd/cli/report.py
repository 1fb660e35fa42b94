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

"""The verb ``report`` of the command line."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from monai_kd.bundle.bundle_network import bundle_network
from monai_kd.report.network_cost import NetworkCost, network_cost
from monai_kd.report.paired_table import paired_table
from monai_kd.report.read_cases import read_cases
from monai_kd.report.score_table import score_table
from monai_kd.report.summary_table import summary_table
from monai_kd.report.write_report import write_report


def report(
    *folders: str,
    output: str = "report.html",
    title: str = "Segmentation, case by case",
    bundle: str = "",
    shape: tuple[int, ...] = (),
    override: dict[str, Any] | None = None,
) -> str:
    """
    Compare evaluation folders case by case in one HTML page: summary, paired tests against the first, pictures.

    Args:
        folders: folders that hold a ``cases.csv``; the first is the baseline, and the name of a folder names its run.
            Pictures (``*.png``) in them are shown below the tables.
        output: path of the HTML page; one that exists is replaced.
        title: title of the page.
        bundle: folder of the bundle that was evaluated: a table puts the parameters and FLOPs of its networks
            beside the mean scores on each test set or class. What the evaluation says of its network
            (``network.json``) tells which of them a run has; without it a run named teacher... has ``teacher_def``.
        shape: shape of the input for the FLOPs, batch first: ``1,3,352,352``; needed with `bundle`.
        override: entries of the bundle's configuration by id with which the networks were trained:
            ``"{'teacher_def::backbone': 'tiny'}"``.

    Returns:
        the tables as text, and the path of the page.

    Raises:
        FileNotFoundError: when a folder has no ``cases.csv``.
        ValueError: without a folder, when two have the same name, a file is not of the form of ``cases.csv``, the
            runs have no metric in common, or there is a `bundle` without `shape`.

    Example::

        >>> from monai_kd.cli.report import report
        >>> report()
        Traceback (most recent call last):
        ValueError: `folders` must name at least one evaluation folder, but got none.
    """
    if bundle and len(shape) < 3:
        raise ValueError(f"`shape` must be (batch, channel, *spatial), as 1,3,352,352, but got {tuple(shape)}.")
    if not folders:
        raise ValueError("`folders` must name at least one evaluation folder, but got none.")
    paths = [Path(folder).resolve() for folder in folders]
    names = [path.name for path in paths]
    if len(set(names)) < len(names):
        raise ValueError(f"`folders` must have different names, they name the runs, but got {', '.join(names)}.")
    runs = {path.name: read_cases(path / "cases.csv") for path in paths}
    measured = [dict.fromkeys(name for case in cases for name in case.metrics) for cases in runs.values()]
    metrics = [name for name in measured[0] if all(name in other for other in measured)]
    if not metrics:
        found = [list(each) for each in measured]
        raise ValueError(f"`folders` must have a metric in common, but got {found}; evaluate all by one bundle.")
    tables = [summary_table(runs, metrics)]
    notes = []
    if bundle:
        options = json.dumps(override or {})  # a text, which a cache can hold
        costs = {path.name: _cost(bundle, path, tuple(shape), options) for path in paths}
        tables.append(score_table(runs, metrics, costs))
        unknown = [run for run, cost in costs.items() if math.isnan(cost.flops)]
        if unknown:
            notes = [
                f"The FLOPs of {', '.join(unknown)} are not known: they were evaluated with another network than "
                f"{bundle} has; tell the options of their training with --override."
            ]
    if len(runs) > 1:
        tables.append(paired_table(runs, metrics[0]))
    figures = {f"{path.name}: {picture.stem}": picture for path in paths for picture in sorted(path.glob("*.png"))}
    page = write_report(output, title, tables, figures)
    return "\n\n".join([*(table.to_text() for table in tables), *notes, f"report: {page}"])


@cache
def _cost_of(bundle: str, network: str, shape: tuple[int, ...], override: str) -> tuple[str, NetworkCost]:
    built = bundle_network(bundle, network, json.loads(override))
    return type(built).__name__, network_cost(built, shape, runs=1)


def _cost(bundle: str, run: Path, shape: tuple[int, ...], override: str) -> NetworkCost:
    known = run / "network.json"
    if not known.is_file():
        network = "teacher_def" if run.name.startswith("teacher") else "network_def"
        return _cost_of(bundle, network, shape, override)[1]
    said, parameters = _network_of(known)
    for network in ("network_def", "teacher_def"):
        name, cost = _cost_of(bundle, network, shape, override)
        if (name, cost.parameters) == (said, parameters):
            return cost
    return replace(cost, parameters=parameters, flops=math.nan)


def _network_of(path: Path) -> tuple[str, int]:
    """Class and number of parameters of the network that an evaluation had."""
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
        return str(said["network"]), int(said["parameters"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"`folders` must hold a network.json with `network` and `parameters`, as an evaluation writes, but got "
            f"{path}: {type(error).__name__} {error}; evaluate again, or remove the file."
        ) from error
