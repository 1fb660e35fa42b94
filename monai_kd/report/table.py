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

"""The table in which everything in a report is held, and the forms in which it is written."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from monai_kd.data.csv_rows import to_csv

MISSING = "-"


class Spread(NamedTuple):
    """A mean with its standard deviation, one cell of a table; of a single value there is no deviation (NaN)."""

    mean: float
    std: float

    def __format__(self, spec: str) -> str:
        if math.isnan(self.mean):
            return MISSING
        return f"{self.mean:{spec}}" + ("" if math.isnan(self.std) else f" ± {self.std:{spec}}")


Cell = str | int | float | Spread


@dataclass
class Table:
    """
    Rows of cells under named columns, written as text, Markdown, CSV or (by :py:func:`write_report`) HTML.

    Numbers are rounded where people read them and whole in the CSV, where a :py:class:`Spread` takes two columns.

    Args:
        title: one line above the table.
        columns: format of each column under its name, ``{"run": "", "dice": ".3f"}``; text is written as it is.
        rows: the cells, one sequence a row.
        note: what a reader has to know, below the table.

    Raises:
        ValueError: when a row has not one cell for each column.

    Example::

        >>> from monai_kd.report import Table
        >>> print(Table("Test", {"run": "", "dice": ".2f"}, [["student", 0.8149]]).to_markdown())
        | run     | dice |
        |---------|-----:|
        | student | 0.81 |
    """

    title: str
    columns: dict[str, str]
    rows: Sequence[Sequence[Cell]] = field(default_factory=list)
    note: str = ""

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"`rows` must have {len(self.columns)} cells each, but got {len(row)}: {list(row)}.")

    def formatted(self) -> list[list[str]]:
        """The cells as people read them; a number that is not defined is a dash."""
        formats = list(self.columns.values())
        return [[_formatted(cell, spec) for cell, spec in zip(row, formats, strict=True)] for row in self.rows]

    def is_number(self) -> list[bool]:
        """Whether a column holds numbers, which are aligned to the right."""
        return [not any(isinstance(row[i], str) for row in self.rows) for i in range(len(self.columns))]

    def joined(self, other: Table) -> Table:
        """This table with the columns of another, row by row where the first cells are equal."""
        found = {row[0]: row[1:] for row in other.rows}
        missing = [row[0] for row in self.rows if row[0] not in found]
        if missing:
            raise ValueError(f"`other` must have a row for each of this table's, but got none for {missing}.")
        added = dict(list(other.columns.items())[1:])
        rows = [[*row, *found[row[0]]] for row in self.rows]
        return Table(self.title, {**self.columns, **added}, rows, " ".join(filter(None, [self.note, other.note])))

    def to_text(self) -> str:
        """The table with aligned columns, for a terminal."""
        head, *body = self._aligned()
        lines = [
            self.title,
            "  ".join(head),
            "  ".join("-" * len(cell) for cell in head),
            *map("  ".join, body),
            *textwrap.wrap(self.note, 110),
        ]
        return "\n".join(line.rstrip() for line in lines if line)

    def to_markdown(self) -> str:
        """The table in GitHub's Markdown, without title and note."""
        head, *body = self._aligned(escape=True)
        rules = ["-" * (len(c) + 1) + (":" if n else "-") for c, n in zip(head, self.is_number(), strict=True)]
        return "\n".join(
            [f"| {' | '.join(head)} |", f"|{'|'.join(rules)}|", *(f"| {' | '.join(row)} |" for row in body)]
        )

    def to_csv(self) -> str:
        """The table with unrounded numbers; an undefined one is an empty cell."""
        spread = [any(isinstance(row[i], Spread) for row in self.rows) for i in range(len(self.columns))]
        names = ([f"{n} mean", f"{n} std"] if s else [n] for n, s in zip(self.columns, spread, strict=True))
        lines: list[list[Any]] = [[name for pair in names for name in pair]]
        for row in self.rows:
            lines.append([value for cell in row for value in (cell if isinstance(cell, Spread) else [cell])])
        return to_csv(lines)

    def _aligned(self, escape: bool = False) -> list[list[str]]:
        grid = [list(self.columns), *self.formatted()]
        if escape:
            grid = [[cell.replace("|", "\\|") for cell in row] for row in grid]
        widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
        align = [str.rjust if number else str.ljust for number in self.is_number()]
        return [[put(cell, width) for put, cell, width in zip(align, row, widths, strict=True)] for row in grid]


def _formatted(cell: Cell, spec: str) -> str:
    if isinstance(cell, str):
        return cell
    if isinstance(cell, float) and math.isnan(cell):
        return MISSING
    return f"{cell:{spec}}"
