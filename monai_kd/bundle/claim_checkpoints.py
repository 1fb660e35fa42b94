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


"""The checkpoints of a run are its own."""

from __future__ import annotations

import errno
import glob
import logging
import os
import socket
from itertools import count
from pathlib import Path
from typing import Any, TextIO

from ignite.distributed import get_rank
from ignite.engine import Engine, Events
from monai.utils import optional_import

from monai_kd.bundle.latest_checkpoint import resume_checkpoints

fcntl, has_fcntl = optional_import("fcntl")  # not on Windows
logger = logging.getLogger("monai_kd")


def claim_checkpoints(trainer: Engine, checkpoint: str | os.PathLike, settings: dict[str, Any]) -> None:
    """
    Keep the checkpoints of a run apart from those of others that were, or are, trained to the same file.

    - Checkpoints of the trainer carry the settings, which :py:func:`~monai_kd.bundle.latest_checkpoint` compares.
    - A run that starts anew sets aside (``.old``, ``.old2`` and so on) the file of an earlier one and what that left to
      resume from: nothing is lost, and should the new run be killed in its first epoch, the earlier one is not resumed,
      or taken for it, in its place.
    - While a process trains, a second one on the same file is refused. The operating system holds the lock, which
      goes with the process however it ends; a file system without locks refuses none. The file of the lock is empty
      when training has ended, so that weights of a run that was killed can be told (:py:func:`was_cut_off`).

    Args:
        trainer: a MONAI trainer. Nothing is written before it runs.
        checkpoint: file of the best weights, whose name without suffix is the prefix of the checkpoints.
        settings: what must be equal to resume, by names that a person understands.

    Raises:
        ValueError: (as training starts) when another process trains to the same file.

    Example::

        >>> trainer = Engine(lambda engine, batch: None)
        >>> claim_checkpoints(trainer, "models/model.pt", {"seed": 0})
        >>> trainer.state.settings
        {'seed': 0}
    """
    path = Path(checkpoint)
    trainer.state.settings = settings
    trainer.state_dict_user_keys.append("settings")
    if get_rank() > 0:
        return
    trainer.add_event_handler(Events.STARTED, _lock, path)
    trainer.add_event_handler(Events.EPOCH_STARTED(once=1), set_aside, path)


def _lock(trainer: Engine, path: Path) -> None:
    if not has_fcntl:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    file = _lock_file(path).open("a+", encoding="utf-8")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.seek(0)
        holder = file.read()
        file.close()
        if error.errno in (errno.EACCES, errno.EAGAIN):  # what POSIX has for a lock of another process
            raise ValueError(
                f"{path} must be trained by one process at a time, but got {holder or 'another one'} at it; wait for "
                "its end, or train under another `--ckpt_name`."
            ) from error
        return
    for partial in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        partial.unlink()  # half a file that a process left which was killed while it wrote
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}")
    file.flush()
    trainer.add_event_handler(Events.COMPLETED, _unlock, file)


def _unlock(file: TextIO) -> None:
    if not file.closed:  # a trainer may run again
        file.truncate(0)
        file.close()


def _lock_file(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


def was_cut_off(path: Path) -> bool:
    """Whether the last run that trained to a file of best weights did not reach its end."""
    lock = _lock_file(path)
    return lock.is_file() and lock.stat().st_size > 0


def set_aside(path: Path) -> None:
    """
    Rename the file of a run's best weights, and what it left to resume from, to ``.old``, or ``.old2`` and so on.

    Args:
        path: file of the best weights, which may be missing.
    """
    earlier = [file for file in [path, *resume_checkpoints(path.parent / "resume", path.stem)] if file.exists()]
    for file in earlier:
        names = (file.with_name(f"{file.name}.old{number if number > 1 else ''}") for number in count(1))
        file.replace(next(name for name in names if not name.exists()))
    if earlier:
        logger.info(
            f"{', '.join(file.name for file in earlier)} of an earlier run in {path.parent} are now called .old (.old2 "
            "and so on where there was one); delete them if they are of no use"
        )
