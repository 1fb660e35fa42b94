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

"""The command line ``python -m monai_kd``: finds the verb, binds its arguments with fire, and only then runs it."""

from __future__ import annotations

import contextlib
import functools
import importlib
import inspect
import io
import os
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any

import fire
from fire.core import FireExit
from fire.decorators import SetParseFn, SetParseFns
from fire.docstrings import parse
from fire.parser import DefaultParseValue

PROGRAM = "python -m monai_kd"
HELP = ("-h", "--help", "help")
# verb: (module that holds a function of the verb's name, what it does)
VERBS = {
    "demo": ("monai_kd.bundle.demo", "train, distil and evaluate on generated CT; a table and an HTML page in minutes"),
    "layers": ("monai_kd.bundle.layers", "list a network's layers with output shapes, to choose what to distil"),
    "export": ("monai_kd.bundle.export", "write a bundle's student to TorchScript, ONNX, OpenVINO or TensorRT"),
    "cost": ("monai_kd.bundle.cost", "parameters, FLOPs, latency and size of networks"),
    "report": ("monai_kd.bundle.report", "compare evaluation folders case by case in one HTML page"),
    "bundles": ("monai_kd.bundle.bundles", "list the bundles that ship with monai_kd, or copy one to work on"),
}


class UsageError(Exception):
    """A command line that names no verb, a wrong verb, or arguments that the verb does not take."""


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run one verb of the command line.

    fire alone would call the function first and complain about a mistyped flag afterwards, minutes later for a
    training. Here it binds the arguments to a stand-in, and the verb runs once every argument has found its place.

    Args:
        arguments: the words after ``python -m monai_kd``, those of this process without it.

    Returns:
        the exit code: 0, 1 when the verb failed on its input, 2 when the command line is wrong.

    Example::

        >>> from monai_kd.cli import main
        >>> main(["bundles", "list", "--sort"])  # doctest: +SKIP
        2
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if not words or words[0] in HELP:
            print(_help_text())
            return 0
        function = _load_verb(words[0])
        if any(word in HELP[:2] for word in words[1:]):
            print(_verb_help_text(words[0], function))
            return 0
        positional, keywords = _bind(words[0], function, words[1:])
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return _run(function, positional, keywords)


def _run(function: Callable[..., Any], positional: tuple, keywords: dict[str, Any]) -> int:
    """Call the verb; an error of its input becomes one line, unless MONAI_KD_TRACEBACK asks for the whole."""
    try:
        result = function(*positional, **keywords)
    except (OSError, ValueError) as error:
        if os.environ.get("MONAI_KD_TRACEBACK"):
            raise
        print(f"error: {error}\n(MONAI_KD_TRACEBACK=1 shows where)", file=sys.stderr)
        return 1
    if isinstance(result, str):
        print(result)
    return 0


def _help_text() -> str:
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
            f"{PROGRAM} VERB --help lists the arguments of a verb.",
            "Training and inference on your own data: python -m monai.bundle run, with a bundle of the list above.",
        ]
    )


def _load_verb(verb: str) -> Callable[..., Any]:
    """The function of a verb; only its module is imported, so that the help stays quick."""
    if verb not in VERBS:
        raise UsageError(
            f"`verb` must be one of {', '.join(VERBS)}, but got {verb!r}{_nearest(verb, VERBS)}; see {PROGRAM} --help."
        )
    return getattr(importlib.import_module(VERBS[verb][0]), verb)


def _verb_help_text(verb: str, function: Callable[..., Any]) -> str:
    """The signature and the documented arguments of a verb."""
    documentation = parse(inspect.getdoc(function) or "")
    described = {a.name.lstrip("*"): " ".join(a.description.split()) for a in documentation.args or []}
    parameters = inspect.signature(function).parameters
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
        lines.append(f"  {name:<{max(map(len, parameters))}}  {described.get(name, '')}{default}")
    head = f"{documentation.summary or VERBS[verb][1]}"
    return "\n".join([head, "", f"usage: {PROGRAM} {' '.join([verb, *usage])}", "", *lines])


def _bind(verb: str, function: Callable[..., Any], words: list[str]) -> tuple[tuple, dict[str, Any]]:
    """
    Turn words into the arguments of a verb, as fire reads them (``--name value``, ``--name=value``, Python literals).

    Raises:
        UsageError: for a flag that the verb does not have, an argument too many, or one that is missing.
    """
    names = list(inspect.signature(function).parameters)
    for word in words:
        flag = word[2:].partition("=")[0].replace("-", "_")
        if word.startswith("--") and flag not in names and flag.removeprefix("no") not in names:
            takes = ", ".join(f"--{name}" for name in names)
            raise UsageError(f"`{verb}` takes {takes}, but got --{flag}{_nearest(flag, [*names, 'help'], '--')}.")
    bound: list[tuple[tuple, dict[str, Any]]] = []

    @functools.wraps(function)
    def stand_in(*positional: Any, **keywords: Any) -> None:
        bound.append((positional, keywords))

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            fire.Fire(_keep_text(stand_in), command=words, name=PROGRAM)
    except FireExit as error:
        reason = next((line for line in said.getvalue().splitlines() if line.startswith("ERROR:")), "ERROR: wrong use")
        raise UsageError(f"{verb}: {reason[7:]}; see {PROGRAM} {verb} --help.") from error
    return bound[0]


def _keep_text(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let fire leave the parameters annotated as str alone: the folder 2024_01 is no number."""
    for name, parameter in inspect.signature(function).parameters.items():
        parser = str if "str" in str(parameter.annotation).split(" | ") else DefaultParseValue
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            function = SetParseFn(parser)(function)
        else:
            function = SetParseFns(**{name: parser})(function)
    return function


def _nearest(word: str, known: Sequence[str] | dict, prefix: str = "") -> str:
    """The known word that was probably meant, as the end of a sentence."""
    match = get_close_matches(word, known, n=1, cutoff=0.5)
    return f" (did you mean {prefix}{match[0]}?)" if match else ""
