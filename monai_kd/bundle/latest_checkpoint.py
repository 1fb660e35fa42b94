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

import logging
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Engine

from monai_kd.bundle.run_identity import is_of_earlier_release
from monai_kd.data.differences import differences
from monai_kd.networks.check_whole import check_whole

logger = logging.getLogger(__name__)
# how `CheckpointSaver` goes on after its `file_prefix`
ENDING = re.compile(r"_checkpoint_(epoch|iteration|final_iteration|key_metric)=-?[0-9.]+\.pt$")


def latest_checkpoint(folder: str | os.PathLike, prefix: str = "", trainer: Engine | None = None) -> str:
    """
    Find the newest checkpoint of a run to resume from. One that was cut off while it was written, or is damaged, is
    passed over with a warning. Each is read once and compared with the checksums in it.

    Args:
        folder: where ``CheckpointSaver`` wrote.
        prefix: its ``file_prefix``.
        trainer: the trainer that is to go on: the checkpoint must be of a run with the settings that
            :py:func:`~monai_kd.bundle.log_run` found in it. None takes the newest whatever it is of.

    Returns:
        the path of the file.

    Raises:
        FileNotFoundError: when the folder holds no checkpoint that can be read.
        ValueError: when the newest one is no checkpoint of a training, or of a run with other settings, with what
            differs.

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
            check_whole(path)
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)  # its weights are not read
        except Exception as error:  # torch raises a dozen kinds for damaged files
            logger.warning("%s cannot be read and is passed over: %s", path, str(error).partition("\n")[0])
        else:
            _check_form(path, content)
            if trainer is not None:
                found = content.get("trainer", {}).get("settings", {})
                _check_settings(path, found, getattr(trainer.state, "settings", {}))
            return str(path)
    raise FileNotFoundError(
        f"`folder` must hold a readable checkpoint of `{prefix}` to resume from, but got {folder} with "
        f"{len(files)} unreadable; start without `resume.yaml`."
    )


def resume_checkpoints(folder: str | os.PathLike, prefix: str = "") -> list[Path]:
    """
    The files that ``CheckpointSaver`` wrote to a folder, the oldest first.

    Args:
        folder: the folder, which may be missing.
        prefix: its ``file_prefix``, whose files are those that consist of it and what the saver adds. Those of a run
            whose name begins alike are others. Without a prefix, all are found.
    """
    found = [path for path in Path(folder).glob("*.pt") if not path.name.startswith(".")]
    if prefix:
        endings = {ending[0] for ending in (ENDING.search(path.name) for path in found) if ending}
        # the file system tells which names are equal, where upper and lower case are not distinguished
        found = [path for path in (Path(folder) / f"{prefix}{ending}" for ending in endings) if path.exists()]
    return sorted(found, key=lambda path: (path.stat().st_mtime_ns, len(path.name), path.name))


def _check_form(path: Path, content: Any) -> None:
    kind = "" if isinstance(content, Mapping) else type(content).__name__
    for name in ("trainer", "settings") if not kind else ():
        content = content.get(name, {})
        if not isinstance(content, Mapping):
            kind = f"an entry `{name}` of {type(content).__name__}"
            break
    if kind:
        raise ValueError(
            f"the checkpoint to resume must be the dictionary that a training writes after each epoch, but got {path} "
            f"with {kind}; remove the file, or start without `resume.yaml`."
        )


def _check_settings(path: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    if not wanted:
        return
    if is_of_earlier_release(found) and not is_of_earlier_release(wanted):
        logger.warning(
            "%s is of an earlier release of monai_kd, whose settings cannot be compared with those of this run; it is "
            "gone on with as it is",
            path,
        )
        return
    other = differences(found, wanted)
    if other:
        raise ValueError(
            f"the run to resume must have the settings of the checkpoint, but got {path} with {other}; give the "
            "settings of that run, start anew without `resume.yaml`, or train under another `--ckpt_name`."
        )
