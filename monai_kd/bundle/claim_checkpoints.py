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

import logging
import os
import socket
from itertools import count
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from ignite.distributed import get_rank
from ignite.engine import Engine, Events

from monai_kd.bundle.latest_checkpoint import resume_checkpoints
from monai_kd.data.write_aside import remove_left, replace_file

logger = logging.getLogger("monai_kd")


def claim_checkpoints(trainer: Engine, checkpoint: str | os.PathLike, settings: dict[str, Any]) -> None:
    """
    Keep the checkpoints of a run apart from those of others that were, or are, trained to the same file.

    - Checkpoints of the trainer carry the settings, which :py:func:`~monai_kd.bundle.latest_checkpoint` compares.
    - A run that starts anew sets aside (``.old``, ``.old2`` and so on) the file of an earlier one and what that left to
      resume from: nothing is lost, and should the new run be killed in its first epoch, the earlier one is not resumed,
      or taken for it, in its place.
    - While a process trains, a second one on the same file is refused. The operating system holds the lock
      (``.NAME.pt.lock``), which goes with the process however it ends; a file system without locks refuses none.
      ``.NAME.pt.training`` names the process and is removed when training has ended, so that weights of a run that was
      killed can be told (:py:func:`was_cut_off`).

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
    path.parent.mkdir(parents=True, exist_ok=True)
    holder = _holder_file(path)
    # one lock for all trainers of this process, which may train again after a training that failed
    lock = FileLock(path.with_name(f".{path.name}.lock"), thread_local=False, is_singleton=True)
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        said = holder.read_text("utf-8") if holder.is_file() else ""
        raise ValueError(
            f"{path} must be trained by one process at a time, but got {said or 'another one'} at it; wait for "
            "its end, or train under another `--ckpt_name`."
        ) from error
    except PermissionError:
        raise
    except (OSError, NotImplementedError):  # a file system without locks
        return
    remove_left(path.parent)  # half a file that a process left which was killed while it wrote
    replace_file(holder, f"process {os.getpid()} on {socket.gethostname()}")
    trainer.add_event_handler(Events.COMPLETED, _unlock, lock, holder)


def _unlock(lock: FileLock, holder: Path) -> None:
    if lock.is_locked:  # a trainer may run again
        holder.unlink(missing_ok=True)
        lock.release(force=True)


def _holder_file(path: Path) -> Path:
    return path.with_name(f".{path.name}.training")


def was_cut_off(path: Path) -> bool:
    """Whether the last run that trained to a file of best weights did not reach its end."""
    return _holder_file(path).is_file()


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
