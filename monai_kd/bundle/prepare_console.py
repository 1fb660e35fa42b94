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

import linecache
import logging
import os
import re
import shlex
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType

from fire.parser import DefaultParseValue
from ignite.engine import Engine, Events
from monai.apps.utils import get_logger
from monai.utils import ensure_tuple

from monai_kd.bundle.check_overrides import check_run
from monai_kd.bundle.latest_checkpoint import resume_checkpoints
from monai_kd.bundle.with_remedy import REMEDIES, with_remedy

# what MONAI puts around an error of a configuration or of a transform
WRAPPERS = ("Failed to evaluate", "Failed to instantiate", "applying transform")
# modules that read and write files
FILES = ("monai_kd.transforms.", "monai_kd.data.", "monai.transforms.io.")
ENGINES = ("SupervisedTrainer", "SupervisedEvaluator", "AdversarialTrainer")


def prepare_console() -> None:
    """
    Leave out of a run's console what its user cannot use, and end an error with its cause.

    - An error that ends the process is followed by one line, ``error: ...``, that repeats its cause, which stands above
      the frames of MONAI otherwise; the exit code stays 1. A value or a file that monai_kd refuses gives that line
      alone: where it was found is shown with ``MONAI_KD_TRACEBACK=1``.
    - Ctrl-C gives one line, with the command that goes on.
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
        logging.getLogger(f"ignite.engine.engine.{engine}").addFilter(_is_of_use)
    get_logger("monai.handlers.StatsHandler").addFilter(_is_of_use)  # MONAI's handler logs each traceback
    if not isinstance(sys.excepthook, _CauseLast):
        sys.excepthook = _CauseLast(sys.excepthook)
    check_run()


def _is_of_use(record: logging.LogRecord) -> bool:
    """No start that is called a resume, nothing about Ctrl-C, and no traceback of what monai_kd refused."""
    error = sys.exc_info()[1]
    if isinstance(error, KeyboardInterrupt):
        return False
    if error is not None and record.exc_info and not os.environ.get("MONAI_KD_TRACEBACK"):
        return not _is_refusal(_cause(error))
    return "resuming from iteration 0," not in record.getMessage()


def tell_how_to_resume(trainer: Engine, checkpoint: str | os.PathLike) -> None:
    """
    Let Ctrl-C name the command that goes on with the training to a file of best weights. It reaches the loader's
    workers as well, whose death would come first, as an error: those that are forked leave it to this process. Where
    Python would ignore it, as the loader is deleted, the next iteration ends the training.

    Args:
        trainer: the trainer.
        checkpoint: the file.
    """
    if isinstance(sys.excepthook, _CauseLast):
        sys.excepthook.checkpoint = Path(checkpoint)
    main_thread = threading.current_thread() is threading.main_thread()
    if main_thread and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _Interrupt())
    interrupt = signal.getsignal(signal.SIGINT)
    if isinstance(interrupt, _Interrupt):
        trainer.add_event_handler(Events.ITERATION_STARTED, interrupt.stop_if_deferred)


class _Interrupt:
    """Ctrl-C of this process alone, deferred where Python would ignore it."""

    def __init__(self) -> None:
        self.process = os.getpid()
        self.deferred = False  # it came while an object was deleted

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self.process:
            return
        names = [each.f_code.co_name for each, _ in traceback.walk_stack(frame)]
        if "__del__" in names:
            self.deferred = True
        else:
            signal.default_int_handler(number, frame)

    def stop_if_deferred(self) -> None:
        """End the training with the interrupt that was deferred."""
        if self.deferred:
            self.deferred = False
            raise KeyboardInterrupt


class _CauseLast:
    """An ``excepthook``: the one before it, and after it the cause on a line of its own."""

    def __init__(self, hook: Callable) -> None:
        self.hook = hook
        self.checkpoint: Path | None = None  # of the training of this process

    def __call__(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if isinstance(error, KeyboardInterrupt):
            print(f"\nstopped{_how_to_resume(sys.argv, self.checkpoint)}", file=sys.stderr)
            _forget_workers()
            return
        if os.environ.get("MONAI_KD_TRACEBACK") or not _is_refusal(_cause(error)):
            self.hook(kind, error, trace)
        else:
            print("\nMONAI_KD_TRACEBACK=1 shows where this was found:", file=sys.stderr)
        if isinstance(error, Exception):
            print(f"\nerror: {root_cause(error) or _line(error)}", file=sys.stderr)


def _forget_workers() -> None:
    """Workers that are still starting are terminated at the end, of which torch would say that they were killed."""
    if hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)


def _is_refusal(error: BaseException) -> bool:
    """Whether monai_kd refused a value or a file, or says which of them could not be read or written."""
    frames = list(traceback.walk_tb(error.__traceback__))
    if not frames:
        return False
    frame, number = frames[-1]
    if _is_of(frame, "monai.transforms.io.") and "suitable writer" in str(error):  # what its writer raised
        return True
    if _is_of(frame, "monai.handlers.checkpoint_loader") and isinstance(error, ValueError):  # more epochs are done
        return True
    if isinstance(error, OSError) and error.errno in REMEDIES:  # whoever writes
        return True
    if not _is_of(frame, "monai_kd."):
        return False
    if isinstance(error, (OSError, ValueError)):
        return True
    by_itself = linecache.getline(frame.f_code.co_filename, number).strip().startswith("raise ")  # and no operation
    return type(error) is RuntimeError and by_itself and (error.__cause__ is None or _is_of_files(error.__cause__))


def _is_of_files(error: BaseException) -> bool:
    """Whether an error came as a file was read or written, and not from a network."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    inner = error.__cause__
    return any(_is_of(frame, FILES) for frame in frames) or (inner is not None and _is_of_files(inner))


def _is_of(frame: FrameType, modules: str | tuple[str, ...]) -> bool:
    return str(frame.f_globals.get("__name__", "")).startswith(modules)


def _how_to_resume(words: list[str], path: Path | None) -> str:
    """What goes on with the training of this process, as the end of a sentence."""
    if path is None:
        return "."
    if not resume_checkpoints(path.parent / "resume", path.stem):
        return "; no epoch of the training was completed, so there is nothing to resume."
    command = words[1:]
    flag = next((word for word in command if word.split("=")[0] == "--config_file"), "")
    place = command.index(flag) if flag else -1
    written = flag.partition("=")[2] or "".join(command[place + 1 : place + 2])
    files = [str(file) for file in ensure_tuple(DefaultParseValue(written))] if flag else []
    if not any(word.endswith("StagedWorkflow") for word in command):
        if not files:
            return "; resume.yaml over the same configurations goes on."
        resume = str(Path(files[0]).parent / "resume.yaml")
        value = str(files if resume in files else [*files, resume]).replace(", ", ",")
        command[place : place + (1 if "=" in flag else 2)] = ["--config_file", value]
    return f"; go on with: {' '.join(map(_quoted, ['python', '-m', 'monai.bundle', *command]))}"


def _quoted(word: str) -> str:
    """A word for a shell: in double quotes where it holds single ones, as bundles have it."""
    return f'"{word}"' if "'" in word and not set(word) & set('"$`\\!') else shlex.quote(word)


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
    cause = _cause(error)
    if "in DataLoader worker process" in str(cause):  # the error of another process, as text: its cause stands first
        first = re.search(r"^[\w.]+(?:Error|Exception): .*", str(cause), re.M)
        return first[0] if first else ""
    return "" if cause is error else _line(cause)


def _cause(error: BaseException) -> BaseException:
    while error.__cause__ is not None and str(error).startswith(WRAPPERS):
        error = error.__cause__
    return error


def _line(error: BaseException) -> str:
    line = traceback.format_exception_only(type(error), error)[-1].strip()
    # what torch says where it cannot write
    if isinstance(error, RuntimeError) and "inline_container" in line:
        return f"{line} A file could not be written to its end: is there space left where `ckpt_dir` lies?"
    return with_remedy(line, error)
