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

import inspect
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import monai_kd
from monai_kd.cli.arguments import bind, typed
from monai_kd.cli.help_text import help_text, verb_help_text
from monai_kd.cli.verbs import UsageError, load_verb

HELP = ("-h", "--help", "help")


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
            print(help_text())
            return 0
        if words[0] == "--version":
            print(f"monai_kd {monai_kd.__version__}")
            return 0
        function = load_verb(words[0])
        if any(word in HELP[:2] for word in words[1:]):
            print(verb_help_text(words[0], function))
            return 0
        bound = typed(words[0], bind(words[0], function, words[1:]))
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
