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

"""Rows of CSV files, made for spreadsheets too, and the columns of ``cases.csv``."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

CASE, GROUP, CLASS, LABEL_VOXELS, PRED_VOXELS = "case", "group", "class", "label_voxels", "pred_voxels"
# what a spreadsheet takes for the start of a formula (OWASP, CSV Injection); the last four are full-width
FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
BYTES = "surrogateescape"  # names of files that are no UTF-8 are read back as they were


def to_cell(value: Any) -> Any:
    """
    A value as a cell. A text that a spreadsheet would take for a formula gets an apostrophe before it, and NaN is
    empty. Numbers stay.

    Args:
        value: a text or a number.

    Example::

        >>> to_cell("=1+1"), to_cell(-0.5), to_cell(float("nan"))
        ("'=1+1", -0.5, '')
    """
    if isinstance(value, str):
        return f"'{value}" if _is_formula(value) else value
    return "" if value != value else value


def from_cell(cell: str) -> str:
    """
    The text that :py:func:`to_cell` made a cell of.

    Args:
        cell: what a CSV file holds.

    Example::

        >>> from_cell("'=1+1"), from_cell("'tis")
        ('=1+1', "'tis")
    """
    return cell[1:] if cell.startswith("'") and _is_formula(cell) else cell


def _is_formula(text: str) -> bool:
    """With apostrophes before it too, so that each text is read back as it was."""
    return text.lstrip("'").startswith(FORMULA)


def to_csv(rows: Iterable[Iterable[Any]], lineterminator: str = "\n") -> str:
    """
    Rows as the text of a CSV file.

    Args:
        rows: texts and numbers.
        lineterminator: what ends a line.

    Example::

        >>> to_csv([["case", "rvd"], ["@a", -0.5]])
        "case,rvd\\n'@a,-0.5\\n"
    """
    stream = io.StringIO(newline="")
    writer = csv.writer(stream, lineterminator=lineterminator)
    writer.writerows(map(to_cell, row) for row in rows)
    return stream.getvalue()


def write_rows(path: Path, rows: Iterable[Iterable[Any]]) -> None:
    """Write a CSV file."""
    path.write_bytes(_encoded(rows))


def append_rows(path: Path, rows: Iterable[Iterable[Any]]) -> None:
    """Write more rows to a CSV file: all of them, or, on a full disk, none."""
    size = path.stat().st_size
    try:
        with path.open("ab") as file:
            file.write(_encoded(rows))
    except BaseException:
        os.truncate(path, size)
        raise


def read_rows(path: Path) -> tuple[list[str], list[tuple[int, dict[str, Any]]]]:
    """
    Read a CSV file that :py:func:`write_rows` wrote, or a spreadsheet saved.

    Args:
        path: the file.

    Returns:
        the names of the columns, and for each row the number of its line and the cells by column: None where one is
        missing, a list under None where there are too many.
    """
    with path.open(encoding="utf-8-sig", errors=BYTES, newline="") as stream:
        reader = csv.DictReader(stream)
        columns = [from_cell(name) for name in reader.fieldnames or []]
        reader.fieldnames = columns
        rows = [(reader.line_num, {name: _text(cell) for name, cell in row.items()}) for row in reader]
    return columns, rows


def _text(cell: Any) -> Any:
    return from_cell(cell) if isinstance(cell, str) else cell


def _encoded(rows: Iterable[Iterable[Any]]) -> bytes:
    return to_csv(rows, "\r\n").encode("utf-8", BYTES)
