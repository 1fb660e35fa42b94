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

"""The help of the command line, from the docstrings of the verbs."""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable
from typing import Any

from monai_kd.cli.verbs import PROGRAM, VERBS

WIDTH = 110


def help_text() -> str:
    """The list of verbs, one line each."""
    width = max(map(len, VERBS))
    lines = [f"  {verb:<{width}}  {summary}" for verb, (_, summary) in VERBS.items()]
    return "\n".join(
        [
            "monai_kd: knowledge distillation for MONAI segmentation networks",
            "",
            f"usage: {PROGRAM} VERB [ARGUMENTS]",
            "",
            *lines,
            "",
            f"{PROGRAM} VERB --help lists the arguments of a verb; --version says which monai_kd this is.",
            "Training and inference on your own data: python -m monai.bundle run, with a bundle of the list above.",
        ]
    )


def verb_help_text(verb: str, function: Callable[..., Any]) -> str:
    """The signature and the documented arguments of a verb."""
    text = inspect.getdoc(function) or ""
    described = _described(text)
    parameters = inspect.signature(function).parameters
    width = max(map(len, parameters)) + 4
    usage, lines = [], []
    for name, parameter in parameters.items():
        required = parameter.default is inspect.Parameter.empty
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            usage.append(f"{name.upper()}...")
        elif parameter.kind is inspect.Parameter.KEYWORD_ONLY or not required:
            usage.append(f"--{name} {name.upper()}" if required else f"[--{name} {name.upper()}]")
        else:
            usage.append(name.upper())
        default = "" if required else f" (default: {parameter.default!r})"
        entry = f"{described.get(name, '')}{default}"
        lines += textwrap.wrap(entry, WIDTH, initial_indent=f"  {name}".ljust(width), subsequent_indent=" " * width)
    head = text.partition("\n\n")[0] or VERBS[verb][1]
    call = textwrap.wrap(f"usage: {PROGRAM} {' '.join([verb, *usage])}", WIDTH, subsequent_indent=" " * 7)
    return "\n".join([*textwrap.wrap(_plain(head), WIDTH), "", *call, "", *lines])


def _described(text: str) -> dict[str, str]:
    """The arguments that a docstring describes."""
    section = re.search(r"^Args:\n((?:[ ].*\n|\n)*)", f"{text}\n", re.M)
    entries = re.split(r"^    (?=\S)", section[1] if section else "", flags=re.M)
    pairs = (entry.partition(":") for entry in entries if entry.strip())
    return {name.strip().lstrip("*"): _plain(words) for name, _, words in pairs}


def _plain(text: str) -> str:
    """A text on one line without the marks of reStructuredText."""
    return re.sub(r":py:\w+:|`(?=`)|(?<=`)`", "", " ".join(text.split()))
