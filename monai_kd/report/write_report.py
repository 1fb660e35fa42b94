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

"""Writes tables and pictures as one HTML file."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader

from monai_kd.data import replace_file
from monai_kd.report.table import Table


def write_report(
    path: str | Path,
    title: str,
    tables: Sequence[Table] = (),
    figures: Mapping[str, bytes | str | Path] | None = None,
    notes: Sequence[str] = (),
    figures_first: bool = False,
) -> Path:
    """
    Write one HTML file that holds everything, pictures included, so that it can be mailed and read offline.

    Args:
        path: the file; one that exists is replaced as a whole or not at all, folders that are missing are made.
        title: title of the page.
        tables: tables, in order.
        figures: pictures under their captions, as PNG bytes or the path of a PNG file.
        notes: paragraphs above the tables. Every text is shown as it is: markup in it has no effect.
        figures_first: whether the pictures stand above notes and tables.

    Returns:
        the absolute path of the file.

    Raises:
        ValueError: when a picture is no PNG.

    Example::

        >>> import tempfile
        >>> from monai_kd.report import Table, write_report
        >>> write_report(f"{tempfile.mkdtemp()}/report.html", "Test", [Table("Runs", {"run": ""}, [["student"]])]).name
        'report.html'
    """
    pictures = {caption: _embedded(caption, picture) for caption, picture in (figures or {}).items()}
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True)
    page = environment.get_template("report.html.j2").render(
        title=title,
        notes=notes,
        tables=tables,
        figures=pictures,
        figures_first=figures_first,
    )
    return replace_file(path, page).resolve()


def _embedded(caption: str, picture: bytes | str | Path) -> str:
    """A picture as the base64 text that a data URL holds."""
    content = picture if isinstance(picture, bytes) else Path(picture).read_bytes()
    if not content.startswith(b"\x89PNG"):
        raise ValueError(f"`figures` must be PNG, but got {content[:8]!r} for {caption!r}.")
    return b64encode(content).decode("ascii")
