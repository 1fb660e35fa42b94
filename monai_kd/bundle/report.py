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

from pathlib import Path

from monai_kd.report.paired_table import paired_table
from monai_kd.report.read_cases import read_cases
from monai_kd.report.summary_table import summary_table
from monai_kd.report.write_report import write_report


def report(*folders: str, output: str = "report.html", title: str = "Segmentation, case by case") -> str:
    """
    Compare evaluation folders case by case in one HTML page: summary, paired tests against the first, pictures.

    Args:
        folders: folders that hold a ``cases.csv``; the first is the baseline, and the name of a folder names its run.
            Pictures (``*.png``) in them are shown below the tables.
        output: path of the HTML page; one that exists is replaced.
        title: title of the page.

    Returns:
        the tables as text, and the path of the page.

    Raises:
        FileNotFoundError: when a folder has no ``cases.csv``.
        ValueError: without a folder, when two have the same name, or a file is not of the form of ``cases.csv``.

    Example::

        >>> from monai_kd.bundle.report import report
        >>> report()
        Traceback (most recent call last):
        ValueError: `folders` must name at least one evaluation folder, but got none.
    """
    if not folders:
        raise ValueError("`folders` must name at least one evaluation folder, but got none.")
    paths = [Path(folder).resolve() for folder in folders]
    names = [path.name for path in paths]
    if len(set(names)) < len(names):
        raise ValueError(f"`folders` must have different names, they name the runs, but got {', '.join(names)}.")
    runs = {path.name: read_cases(path / "cases.csv") for path in paths}
    tables = [summary_table(runs), *([paired_table(runs)] if len(runs) > 1 else [])]
    figures = {f"{path.name}: {picture.stem}": picture for path in paths for picture in sorted(path.glob("*.png"))}
    page = write_report(output, title, tables, figures)
    return "\n\n".join([*(table.to_text() for table in tables), f"report: {page}"])
