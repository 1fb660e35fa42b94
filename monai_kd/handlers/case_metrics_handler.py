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

"""One row a case and class: the table that an evaluation leaves behind."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.distributed import get_rank, get_world_size
from ignite.engine import Engine, Events
from monai.utils import evenly_divisible_all_gather, string_list_all_gather

from monai_kd.data.case_name import case_name
from monai_kd.data.csv_rows import CASE, CLASS, GROUP, LABEL_VOXELS, PRED_VOXELS, write_rows
from monai_kd.data.write_aside import remove_left, write_aside
from monai_kd.metrics import count_voxels
from monai_kd.networks.feature_capture import unwrap

logger = logging.getLogger(__name__)


class CaseMetricsHandler:
    """
    Writes ``cases.csv`` (one row a case and class) and ``summary.json`` (mean, standard deviation, median and number
    of cases a class) when an evaluation ends. The values are those of the metrics attached to the evaluator with
    ``save_details=True``; an empty value says that the metric is not defined, since the label holds none of the class.
    Such cases count in no mean; what was predicted in them stands under ``pred_voxels`` and, summed, as
    ``false_positive_voxels`` in the summary. ``network.json`` tells class and number of parameters of the network that
    was evaluated. The files are replaced as a whole or not at all. A name that a spreadsheet would take for a formula
    has an apostrophe before it, which :py:func:`~monai_kd.report.read_cases` takes away. A network that predicts none
    of a class in all cases, or nothing else, is warned of.

    Args:
        output_dir: folder to write to, made if it is missing.
        classes: name of each foreground class, in the order of the channels after the background.
        metrics: names of the evaluator's metrics that give the columns.
        group_key: entry of each item that names the test set it belongs to, as "dataset"; it becomes the column
            ``group``, and the summary has an entry for each group and class, "Kvasir polyp".

    Raises:
        ValueError: when there is no class, (as it is attached) there is no item to evaluate, (as it runs) an item has
            no such entry, or (as it ends) a metric keeps no details or has other classes.

    Example::

        >>> handler = CaseMetricsHandler("eval", classes=["liver", "tumour"])
    """

    def __init__(
        self,
        output_dir: str | os.PathLike,
        classes: Sequence[str],
        metrics: Sequence[str] = ("dice", "voe", "rvd"),
        group_key: str | None = None,
    ) -> None:
        if not classes:
            raise ValueError("`classes` must name at least one foreground class, but got none.")
        self.output_dir = Path(output_dir)
        self.classes = list(classes)
        self.metrics = list(metrics)
        self.group_key = group_key
        self._names: list[str] = []
        self._groups: list[str] = []
        self._voxels: list[torch.Tensor] = []

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator whose output is decollated and one-hot (C, *spatial)."""
        if engine.state.epoch_length == 0:  # MONAI would skip the run with a warning
            raise ValueError(
                "`val_data_loader` must give at least one item on each rank, but got none; nothing would be measured, "
                f"and what an earlier evaluation left in {self.output_dir} would seem to be new."
            )
        engine.add_event_handler(Events.EPOCH_STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._count)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._write)

    def _start(self, engine: Any) -> None:
        self._names, self._groups, self._voxels = [], [], []

    def _count(self, engine: Any) -> None:
        for item, output in zip(engine.state.batch, engine.state.output):
            self._names.append(case_name(item))
            self._groups.append(self._group(item))
            pred, label, _ = count_voxels(output["pred"][None], output["label"][None], include_background=False)
            every = torch.full_like(pred, output["pred"][0].numel())
            self._voxels.append(torch.cat([label, pred, every]).cpu())  # (3, classes)

    def _group(self, item: dict[str, Any]) -> str:
        if self.group_key is None:
            return ""
        if self.group_key not in item:
            raise ValueError(f"`group_key` must be an entry of each item, but got {self.group_key!r} of {list(item)}.")
        return str(item[self.group_key])

    def _write(self, engine: Any) -> None:
        names, groups, voxels = self._names, self._groups, torch.stack(self._voxels)
        if get_world_size() > 1:
            names, groups = string_list_all_gather(names), string_list_all_gather(groups)
            voxels = evenly_divisible_all_gather(voxels.to(engine.state.device), concat=True).cpu()
        if get_rank() == 0:
            remove_left(self.output_dir)
            rows = self._rows(engine.state.metric_details, names, groups, voxels.numpy())
            others = {"summary.json": self._summary(rows)}
            network = unwrap(engine.network) if isinstance(getattr(engine, "network", None), torch.nn.Module) else None
            if network is not None:
                size = sum(parameter.numel() for parameter in network.parameters())
                others["network.json"] = {"network": type(network).__name__, "parameters": size}
            self._replace("cases.csv", rows, others)
            logger.info(f"wrote {self.output_dir / 'cases.csv'} and summary.json of {len(names)} cases")
            self._warn(voxels)

    def _warn(self, voxels: torch.Tensor) -> None:
        for c, label in enumerate(self.classes):
            labelled, predicted, every = voxels[:, :, c].T
            if labelled.any() and not predicted.any():
                logger.warning(f"{label} was predicted nowhere in {len(voxels)} cases; the network has not learnt it")
            elif (predicted == every).all() and (labelled < every).any():
                logger.warning(
                    f"{label} was predicted everywhere in {len(voxels)} cases; the network has not learnt it"
                )

    def _rows(
        self, details: dict[str, torch.Tensor], names: list[str], groups: list[str], voxels: np.ndarray
    ) -> list[dict[str, Any]]:
        values = {}
        for metric in self.metrics:
            if metric not in details:
                raise ValueError(f"`{metric}` must be a metric with `save_details=True`, but got {sorted(details)}.")
            values[metric] = details[metric].reshape(len(names), -1).cpu().numpy()
            if values[metric].shape[1] != len(self.classes):
                raise ValueError(
                    f"`classes` must name the {values[metric].shape[1]} classes of `{metric}`, but got {self.classes}."
                )
        return [
            ({CASE: name} if self.group_key is None else {CASE: name, GROUP: groups[i]})
            | {CLASS: label}
            | {metric: float(values[metric][i, c]) for metric in self.metrics}
            | {LABEL_VOXELS: int(voxels[i, 0, c]), PRED_VOXELS: int(voxels[i, 1, c])}
            for i, name in enumerate(names)
            for c, label in enumerate(self.classes)
        ]

    def _summary(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        summary: dict[str, Any] = {}
        for group, label in dict.fromkeys((row.get(GROUP), row[CLASS]) for row in rows):
            own = [row for row in rows if (row.get(GROUP), row[CLASS]) == (group, label)]
            entry: dict[str, Any] = {"cases": len(own), "empty_labels": sum(row[LABEL_VOXELS] == 0 for row in own)}
            entry["false_positive_voxels"] = sum(row[PRED_VOXELS] for row in own if row[LABEL_VOXELS] == 0)
            for metric in self.metrics:
                found = np.array([row[metric] for row in own if not np.isnan(row[metric])])
                statistics = dict.fromkeys(("mean", "std", "median"))
                if len(found) > 0 and np.isfinite(found).all():  # one infinite distance leaves no mean
                    spread = found.std(ddof=1) if len(found) > 1 else 0.0
                    statistics = {"mean": found.mean(), "std": spread, "median": np.median(found)}
                entry[metric] = statistics | {"n": len(found)}
                if np.isinf(found).any():
                    entry[metric]["infinite"] = int(np.isinf(found).sum())
            summary[label if group is None else f"{group} {label}"] = entry
        return summary

    def _replace(self, name: str, content: Any, others: Mapping[str, Any] | None = None) -> None:
        """Write a file, and others beside it: all of them or none."""
        with write_aside(self.output_dir / name) as aside:
            for other, held in {name: content, **(others or {})}.items():
                _write(aside.with_name(other), held)


def _write(path: Path, content: Any) -> None:
    if path.suffix == ".json":
        path.write_text(json.dumps(content, indent=1), encoding="utf-8", newline="\n")
    else:
        write_rows(path, [list(content[0]), *(row.values() for row in content)])
