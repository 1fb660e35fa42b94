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
import re
import sys
import textwrap
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Any

import fire
from fire.core import FireExit
from fire.decorators import SetParseFn, SetParseFns
from fire.parser import DefaultParseValue

import monai_kd

PROGRAM = "python -m monai_kd"
HELP = ("-h", "--help", "help")
WIDTH = 110  # of the help
# verb: (module that holds a function of the verb's name, what it does)
VERBS = {
    "demo": ("monai_kd.bundle.demo", "train, distil and evaluate on generated CT; a table and an HTML page in minutes"),
    "distill": ("monai_kd.bundle.distil", "make a smaller network of a MONAI bundle, and a bundle of it"),
    "nnunet": ("monai_kd.nnunet.command", "plans and trainer for a small nnU-Net that a trained one teaches"),
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
        if words[0] == "--version":
            print(f"monai_kd {monai_kd.__version__}")
            return 0
        function = _load_verb(words[0])
        if any(word in HELP[:2] for word in words[1:]):
            print(_verb_help_text(words[0], function))
            return 0
        bound = _typed(words[0], _bind(words[0], function, words[1:]))
        return _run(function, bound)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped.", file=sys.stderr)
        return 130


def _run(function: Callable[..., Any], bound: inspect.BoundArguments) -> int:
    """Call the verb; an error becomes one line, unless MONAI_KD_TRACEBACK asks for the whole."""
    try:
        result = function(*bound.args, **bound.kwargs)
    except Exception as error:
        if os.environ.get("MONAI_KD_TRACEBACK"):
            raise
        from monai_kd.bundle.with_remedy import with_remedy

        print(f"error: {with_remedy(_line(error), error)}\n(MONAI_KD_TRACEBACK=1 shows where)", file=sys.stderr)
        return 1
    if isinstance(result, str):
        print(result)
    return 0


def _line(error: Exception) -> str:
    """The cause of an error on one line; its class where it is none that a wrong input has."""
    if isinstance(error, (OSError, ValueError)):
        return " ".join(str(error).split())
    from monai_kd.bundle.prepare_console import root_cause  # which needs MONAI

    return " ".join((root_cause(error) or f"{type(error).__name__}: {error}").split())


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
            f"{PROGRAM} VERB --help lists the arguments of a verb; --version says which monai_kd this is.",
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


def _bind(verb: str, function: Callable[..., Any], words: list[str]) -> inspect.BoundArguments:
    """
    Turn words into the arguments of a verb, as fire reads them (``--name value``, ``--name=value``, Python literals).

    Raises:
        UsageError: for a flag that the verb does not have, an argument too many, one that is missing, or one without a
            value.
    """
    signature = inspect.signature(function)
    _check_flags(verb, signature, words)
    bound: list[inspect.BoundArguments] = []

    @functools.wraps(function)
    def stand_in(*positional: Any, **keywords: Any) -> None:
        bound.append(signature.bind(*positional, **keywords))

    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            fire.Fire(_keep_text(stand_in), command=words, name=PROGRAM)
    except FireExit as error:
        reason = next((line for line in said.getvalue().splitlines() if line.startswith("ERROR:")), "ERROR: wrong use")
        raise UsageError(f"{verb}: {reason[7:]}; see {PROGRAM} {verb} --help.") from error
    except (TypeError, ValueError, MemoryError, RecursionError) as error:  # a literal that Python cannot build
        raise UsageError(f"{verb}: {error or 'a value is too large'}; see {PROGRAM} {verb} --help.") from error
    return bound[0]


def _check_flags(verb: str, signature: inspect.Signature, words: list[str]) -> None:
    """Each flag is one of the verb, and has a value unless it is a switch."""
    names = list(signature.parameters)
    switches = [name for name, parameter in signature.parameters.items() if isinstance(parameter.default, bool)]
    for number, word in enumerate(words):
        if not word.startswith("--"):
            continue
        flag, equals, _ = word[2:].partition("=")
        flag = flag.replace("-", "_")
        if flag not in names and flag.removeprefix("no") not in switches:
            takes = ", ".join(f"--{name}" for name in names)
            raise UsageError(f"`{verb}` takes {takes}, but got --{flag}{_nearest(flag, [*names, 'help'], '--')}.")
        last = number + 1 == len(words) or words[number + 1].startswith("--")
        if flag in names and flag not in switches and last and not equals:
            raise UsageError(f"`--{flag}` must have a value, but got none; see {PROGRAM} {verb} --help.")


def _typed(verb: str, bound: inspect.BoundArguments) -> inspect.BoundArguments:
    """
    Bring the arguments to the types of the verb's parameters.

    Raises:
        UsageError: for a value of another type.
    """
    for name, value in bound.arguments.items():
        parameter = bound.signature.parameters[name]
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            bound.arguments[name] = tuple(map(os.path.expanduser, value))
        elif _takes_text(parameter):
            bound.arguments[name] = os.path.expanduser(value)
        else:
            bound.arguments[name] = _read(verb, name, value, parameter)
    return bound


def _read(verb: str, name: str, value: Any, parameter: inspect.Parameter) -> Any:
    """A number, a switch, a shape or overrides."""
    if value == parameter.default:
        return value
    from monai_kd.bundle.override_value import is_code, override_value  # which needs torch

    if isinstance(value, str) and is_code(value):  # there is no configuration to evaluate it in
        raise UsageError(f"{verb}: `{name}` must be a value as {_example(parameter)!r}, but got {value!r}.")
    try:
        return override_value(name, value, _example(parameter))
    except ValueError as error:
        raise UsageError(f"{verb}: {error}") from error


def _example(parameter: inspect.Parameter) -> Any:
    """A value of the type of a parameter."""
    empty = {"tuple[int, ...]": (1,), "dict[str, Any] | None": {}}  # whose defaults do not tell it
    return empty.get(str(parameter.annotation), parameter.default)


def _keep_text(function: Callable[..., Any]) -> Callable[..., Any]:
    """Let fire leave the parameters annotated as str alone: the folder 2024_01 is no number."""
    for name, parameter in inspect.signature(function).parameters.items():
        parser = str if _takes_text(parameter) else DefaultParseValue
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            function = SetParseFn(parser)(function)
        else:
            function = SetParseFns(**{name: parser})(function)
    return function


def _takes_text(parameter: inspect.Parameter) -> bool:
    return "str" in str(parameter.annotation).split(" | ")


def _nearest(word: str, known: Sequence[str] | dict, prefix: str = "") -> str:
    """The known word that was probably meant, as the end of a sentence."""
    match = get_close_matches(word, known, n=1, cutoff=0.5)
    return f" (did you mean {prefix}{match[0]}?)" if match else ""
