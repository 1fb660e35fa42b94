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

"""The law of files as people have them: read right, or refused in one line."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

# a rule, the value, the remedy
RULE = re.compile(r"\b(must|cannot be)\b")
VALUE = re.compile(r", but |cannot be read, \w+: \S")
REMEDY = re.compile(r"; \w.*\w")


def read_or_refused(read: Callable[[], Any], file: Path) -> Any:
    """What is read; None where the file is refused as it must be, in one line with its name."""
    try:
        return read()
    except Exception as error:
        check_refusal(error, file)
        return None


def check_refusal(error: Exception, file: Path) -> None:
    """One line of an error of Python's own that names thing, rule, value and remedy."""
    text = str(error)
    assert type(error) in (ValueError, RuntimeError, FileNotFoundError), repr(error)
    if "cannot be used; repair them" in text:  # a list, here of one
        text = text.replace("\n", "", 1)
    assert "\n" not in text, text
    assert str(file) in text, text
    for part in (RULE, VALUE, REMEDY):
        assert part.search(text), f"no {part.pattern} in: {text}"
