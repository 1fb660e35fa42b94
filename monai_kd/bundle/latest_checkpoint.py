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


"""The newest checkpoint that can be read."""

from __future__ import annotations

import glob
import logging
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine

logger = logging.getLogger(__name__)


def latest_checkpoint(folder: str | os.PathLike, prefix: str = "", trainer: Engine | None = None) -> str:
    """
    Find the newest checkpoint of a run to resume from. One that was cut off while it was written is passed over.

    Args:
        folder: where ``CheckpointSaver`` wrote.
        prefix: its ``file_prefix``.
        trainer: the trainer that is to go on: the checkpoint must be of a run with the settings that
            :py:func:`~monai_kd.bundle.log_run` found in it. None takes the newest whatever it is of.

    Returns:
        the path of the file.

    Raises:
        FileNotFoundError: when the folder holds no checkpoint that can be read.
        ValueError: when the newest one is of a run with other settings, with what differs.

    Example::

        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save({"epoch": 1}, f"{folder}/model_checkpoint_epoch=1.pt")
        ...     latest_checkpoint(folder, "model").endswith("epoch=1.pt")
        True
    """
    files = resume_checkpoints(folder, prefix)
    for path in reversed(files):
        try:
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)  # its weights are not read
        except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
            logger.warning("%s cannot be read and is passed over: %s", path, str(error).partition("\n")[0])
        else:
            if trainer is not None:
                found = content.get("trainer", {}).get("settings", {})
                _check_settings(path, found, getattr(trainer.state, "settings", {}))
            return str(path)
    raise FileNotFoundError(
        f"`folder` must hold a readable checkpoint of `{prefix}` to resume from, but got {folder} with "
        f"{len(files)} unreadable; start without `resume.yaml`."
    )


def resume_checkpoints(folder: str | os.PathLike, prefix: str = "") -> list[Path]:
    """The files that ``CheckpointSaver`` wrote to a folder under its ``file_prefix``, any without, the oldest first."""
    pattern = f"{glob.escape(prefix)}_checkpoint*.pt" if prefix else "*.pt"
    return sorted(Path(folder).glob(pattern), key=lambda path: (path.stat().st_mtime_ns, len(path.name), path.name))


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """What is wanted and was not found, in words: ``seed 0 and not 1``; an entry that is missing is None."""
    pairs = {name: (found.get(name), value) for name, value in wanted.items()}
    return [f"{name} {old!r} and not {new!r}" for name, (old, new) in pairs.items() if old != new]


def _check_settings(path: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    other = differences(found, wanted)
    if other:
        raise ValueError(
            f"the run to resume must have the settings of the checkpoint, but got {path} with {', '.join(other)}; give "
            "the settings of that run, start anew without `resume.yaml`, or train under another `--ckpt_name`."
        )
