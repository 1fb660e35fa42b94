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

"""What the console of a run shows, and how an error ends it."""

from __future__ import annotations

import logging
import re
import sys
import traceback
import warnings
from collections.abc import Callable
from types import TracebackType

from monai_kd.bundle.check_overrides import check_run

# what MONAI puts around an error of a configuration or of a transform
WRAPPERS = ("Failed to evaluate", "Failed to instantiate", "applying transform")
ENGINES = ("SupervisedTrainer", "SupervisedEvaluator")


def prepare_console() -> None:
    """
    Leave out of a run's console what its user cannot use, and end an error with its cause.

    - An error that ends the process is followed by one line, ``error: ...``, that repeats its cause, which stands above
      the frames of MONAI otherwise. The traceback stays as it is, and so does the exit code 1.
    - MONAI's search for a DICOM decoder that few have is silent.
    - A training that starts is not called one that resumes from iteration 0.

    Before that it checks the overrides of the run (:py:func:`~monai_kd.bundle.check_overrides.check_run`), which MONAI
    takes whatever they are.

    Calling it again changes nothing.

    Example, the first line of a bundle's ``initialize``::

        - $monai_kd.bundle.prepare_console()
    """
    warnings.filterwarnings("ignore", "NvImgCodec")
    logging.getLogger("monai.data.nvimgcodec_pydicom_plugin").setLevel(logging.ERROR)
    for engine in ENGINES:
        logging.getLogger(f"ignite.engine.engine.{engine}").addFilter(_is_no_start)
    if getattr(sys.excepthook, "__module__", "") != __name__:
        sys.excepthook = _with_cause_last(sys.excepthook)
    check_run()


def _is_no_start(record: logging.LogRecord) -> bool:
    return "resuming from iteration 0," not in record.getMessage()


def _with_cause_last(hook: Callable) -> Callable:
    """The hook, and after it the cause on a line of its own."""

    def excepthook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        hook(kind, error, trace)
        if isinstance(error, Exception):
            print(f"\nerror: {root_cause(error) or _line(error)}", file=sys.stderr)

    return excepthook


def root_cause(error: BaseException) -> str:
    """
    The error inside those of MONAI that wrap it, as ``ValueError: message``; empty where nothing wraps it.

    Args:
        error: what ended the run.

    Example::

        >>> try:
        ...     raise RuntimeError("Failed to evaluate ...") from ValueError("`folder` must hold cases.")
        ... except RuntimeError as error:
        ...     root_cause(error)
        'ValueError: `folder` must hold cases.'
    """
    cause = error
    while cause.__cause__ is not None and str(cause).startswith(WRAPPERS):
        cause = cause.__cause__
    if "in DataLoader worker process" in str(cause):  # the error of another process, as text: its cause stands first
        first = re.search(r"^[\w.]+(?:Error|Exception): .*", str(cause), re.M)
        return first[0] if first else ""
    return "" if cause is error else _line(cause)


def _line(error: BaseException) -> str:
    line = traceback.format_exception_only(type(error), error)[-1].strip()
    # what torch says where it cannot write
    full = isinstance(error, RuntimeError) and "inline_container" in line
    return (
        f"{line} A file could not be written to its end: is there space left where `ckpt_dir` lies?" if full else line
    )
