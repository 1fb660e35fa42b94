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

"""The words of a command line as the arguments of a verb."""

from __future__ import annotations

import contextlib
import functools
import inspect
import io
import os
from collections.abc import Callable
from typing import Any

import fire
from fire.core import FireExit
from fire.decorators import SetParseFn, SetParseFns
from fire.parser import DefaultParseValue

from monai_kd.cli.verbs import PROGRAM, UsageError, nearest


def bind(verb: str, function: Callable[..., Any], words: list[str]) -> inspect.BoundArguments:
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
            raise UsageError(f"`{verb}` takes {takes}, but got --{flag}{nearest(flag, [*names, 'help'], '--')}.")
        last = number + 1 == len(words) or words[number + 1].startswith("--")
        if flag in names and flag not in switches and last and not equals:
            raise UsageError(f"`--{flag}` must have a value, but got none; see {PROGRAM} {verb} --help.")


def typed(verb: str, bound: inspect.BoundArguments) -> inspect.BoundArguments:
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
