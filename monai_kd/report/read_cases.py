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

"""Reads the metrics per case that an evaluation writes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from monai_kd.data.csv_rows import CASE, CLASS, GROUP, LABEL_VOXELS, PRED_VOXELS, read_rows

COLUMNS = (CASE, CLASS, LABEL_VOXELS, PRED_VOXELS)

RANGES = {"dice": (0, 1), "voe": (0, 1)}


@dataclass(frozen=True)
class CaseMetrics:
    """
    The metrics of one class in one case.

    Args:
        case: name of the case, after that of its group if it has one.
        class_name: name of the class, after that of the case's group if it has one: "Kvasir polyp".
        metrics: values under the names of the metrics, NaN where one is not defined, as for a class without label.
        label_voxels: voxels of the class in the label.
        pred_voxels: voxels of the class in the prediction.
    """

    case: str
    class_name: str
    metrics: dict[str, float]
    label_voxels: int
    pred_voxels: int


def read_cases(path: str | Path) -> list[CaseMetrics]:
    """
    Read a ``cases.csv``: the columns ``case``, ``class``, ``label_voxels``, ``pred_voxels``, and one for each metric
    (``dice``, ``voe``, ``rvd``); an empty cell or ``nan`` is a value that is not defined. A column ``group`` may
    name the test set of each case.

    Args:
        path: the file.

    Raises:
        FileNotFoundError: when there is none.
        ValueError: when a column is missing, a value is no number or out of range, a class occurs twice in a case, or
            there is no row.

    Example::

        >>> import tempfile, pathlib
        >>> from monai_kd.report import read_cases
        >>> path = pathlib.Path(tempfile.mkdtemp(), "cases.csv")
        >>> size = path.write_text("case,class,dice,label_voxels,pred_voxels\\n01,liver,0.9,80,82\\n")
        >>> read_cases(path)[0].metrics
        {'dice': 0.9}
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f"`path` must be a cases.csv that an evaluation wrote, but got {path}, which is not there."
        )
    columns, rows = read_rows(path)
    missing = [column for column in COLUMNS if column not in columns]
    if missing:
        raise ValueError(
            f"`path` must have the columns {', '.join(COLUMNS)}, but got {path} without {missing}; "
            "write it as UTF-8 with commas between the columns."
        )
    cases = [_case(path, line, row) for line, row in rows]
    keys = [(case.case, case.class_name) for case in cases]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice or not cases:
        raise ValueError(
            f"`path` must have one row for each class of a case, but got {twice or 'no row'} in {path}; evaluate anew."
        )
    return cases


def _case(path: Path, line: int, row: dict[str, str]) -> CaseMetrics:
    try:
        metrics = {k: float(v) if v.strip() else math.nan for k, v in row.items() if k not in (*COLUMNS, GROUP)}
        class_name = " ".join(filter(None, [row.get(GROUP), row[CLASS]]))
        case = "/".join(filter(None, [row.get(GROUP), row[CASE]]))  # test sets number their frames alike
        voxels = int(float(row[LABEL_VOXELS])), int(float(row[PRED_VOXELS]))
        found = CaseMetrics(case, class_name, metrics, *voxels)
    except (AttributeError, OverflowError, TypeError, ValueError) as error:
        raise ValueError(
            f"`path` must hold a number for each metric, but got {row} in line {line} of {path}; correct the line."
        ) from error
    _check_ranges(path, line, found)
    return found


def _check_ranges(path: Path, line: int, case: CaseMetrics) -> None:
    for name, value in case.metrics.items():
        low, high = RANGES.get(name, (-math.inf, math.inf))
        if value < low or value > high:  # and not NaN
            raise ValueError(
                f"`{name}` must be {low} to {high}, but got {value:g} in line {line} of {path}; correct the line."
            )
