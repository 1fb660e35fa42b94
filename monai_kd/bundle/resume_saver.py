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

"""Checkpoints that are always whole."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ignite.distributed import get_rank
from ignite.handlers import DiskSaver
from ignite.handlers.checkpoint import BaseSaveHandler
from monai.handlers import CheckpointSaver

from monai_kd._private_attributes import checkpoints_of
from monai_kd.bundle.write_weights import write_weights


class ResumeSaver(CheckpointSaver):
    """
    MONAI's ``CheckpointSaver``, which writes each file aside and replaces it as a whole. MONAI writes in place: a run
    that is killed while it writes, or that meets a full disk, leaves half a checkpoint under its final name.

    The arguments, the names of the files and the number that are kept are MONAI's.

    Args:
        args: of ``CheckpointSaver``.
        kwargs: of ``CheckpointSaver``.

    Example::

        >>> import tempfile, torch
        >>> saver = ResumeSaver(tempfile.mkdtemp(), {"model": torch.nn.Linear(2, 1)}, save_interval=1, n_saved=2)
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for checkpoint in checkpoints_of(self):
            checkpoint.save_handler = _WholeFiles(checkpoint.save_handler)


class _WholeFiles(BaseSaveHandler):
    """Writes aside where MONAI's own saver would write in place."""

    def __init__(self, saver: DiskSaver) -> None:
        self.saver = saver

    def __call__(self, checkpoint: Mapping, filename: str, metadata: Mapping | None = None) -> None:
        if get_rank() == 0:
            name = getattr(self.saver, "filename", None) or filename
            write_weights(checkpoint, Path(self.saver.dirname) / name)

    def remove(self, filename: str) -> None:
        self.saver.remove(filename)
