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

import base64
import re
from html.parser import HTMLParser

import pytest

from monai_kd.report import Table, write_report

# the smallest picture: one transparent pixel
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)
ATTACK = "<script>alert('x')</script>\"&"


class Reader(HTMLParser):
    """The tags of a page and the text between them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text.append(data.strip())


def test_page_holds_everything(tmp_path):
    table = Table("Dice", {"run": "", "dice": ".2f"}, [["student", 0.8149]], "Mean over cases.")
    (tmp_path / "pixel.png").write_bytes(PIXEL)
    figures = {"bytes": PIXEL, "file": tmp_path / "pixel.png"}
    path = write_report(tmp_path / "new" / "page.html", "Runs", [table], figures, ["Read me first."])
    assert path == tmp_path / "new" / "page.html"
    page = Reader(path.read_text("utf-8"))
    for text in ("Runs", "Read me first.", "Dice", "student", "0.81", "Mean over cases.", "bytes", "file"):
        assert text in page.text
    pictures = [base64.b64decode(attrs["src"].partition(",")[2]) for tag, attrs in page.tags if tag == "img"]
    assert pictures == [PIXEL, PIXEL]


def test_nothing_is_loaded_from_elsewhere(tmp_path):
    text = write_report(tmp_path / "page.html", "Runs", figures={"": PIXEL}).read_text("utf-8")
    assert not re.search(r"https?://|<script|<link|@import", text)
    assert "color-scheme: light dark" in text


def test_markup_in_any_text_has_no_effect(tmp_path):
    table = Table(ATTACK, {ATTACK: ""}, [[ATTACK]], ATTACK)
    text = write_report(tmp_path / "page.html", ATTACK, [table], {ATTACK: PIXEL}, [ATTACK]).read_text("utf-8")
    page = Reader(text)
    assert "script" not in {tag for tag, _ in page.tags}
    assert page.text.count(ATTACK) == 8  # title twice, note, table title, column, cell, table note, caption
    assert [attrs["alt"] for tag, attrs in page.tags if tag == "img"] == [ATTACK]


def test_page_is_replaced(tmp_path):
    write_report(tmp_path / "page.html", "One")
    assert "One" not in write_report(tmp_path / "page.html", "Two").read_text("utf-8")


def test_other_pictures_are_refused(tmp_path):
    with pytest.raises(ValueError, match="`figures` must be PNG, but got b'GIF89a' for 'cat'"):
        write_report(tmp_path / "page.html", "Runs", figures={"cat": b"GIF89a"})


@pytest.mark.parametrize(
    ("first", "order"), [(False, ["h1", "p", "h2", "figure"]), (True, ["h1", "figure", "p", "h2"])]
)
def test_pictures_stand_last_or_first(tmp_path, first, order):
    table = Table("Dice", {"run": ""}, [["student"]])
    path = write_report(tmp_path / "page.html", "Runs", [table], {"": PIXEL}, ["Note."], figures_first=first)
    page = Reader(path.read_text("utf-8"))
    assert [tag for tag, _ in page.tags if tag in order] == order
