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

"""What pictures of cases have in common: a row a case, a column a title, a legend below."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np


def picture(
    cases: Sequence[Any],
    titles: Sequence[str],
    size: tuple[float, float],
    draw: Callable[[np.ndarray, Any], None],
    legend: Sequence[Any],
) -> bytes:
    """Draw the cases as PNG: `size` in inches, `draw` gets the axes of a row and its case, `legend` has labels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=110, layout="constrained")
    grid = figure.subplots(len(cases), len(titles), squeeze=False)
    for row, case in zip(grid, cases, strict=True):
        draw(row, case)
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title, fontsize=9)
    figure.legend(handles=legend, loc="outside lower center", ncols=len(legend), fontsize=8, frameon=False)
    FigureCanvasAgg(figure)
    stream = io.BytesIO()
    figure.savefig(stream, format="png")
    return stream.getvalue()
