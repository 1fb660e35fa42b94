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
from pathlib import Path

import torch

logger = logging.getLogger(__name__)


def latest_checkpoint(folder: str | os.PathLike, prefix: str = "") -> str:
    """
    Find the newest checkpoint of a run to resume from. One that was cut off while it was written is passed over.

    Args:
        folder: where ``CheckpointSaver`` wrote.
        prefix: its ``file_prefix``.

    Returns:
        the path of the file.

    Raises:
        FileNotFoundError: when the folder holds no checkpoint that can be read.

    Example::

        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save({"epoch": 1}, f"{folder}/model_checkpoint_epoch=1.pt")
        ...     latest_checkpoint(folder, "model").endswith("epoch=1.pt")
        True
    """
    pattern = f"{glob.escape(prefix)}_checkpoint*.pt" if prefix else "*.pt"
    files = sorted(Path(folder).glob(pattern), key=lambda path: path.stat().st_mtime_ns)
    for path in reversed(files):
        try:
            torch.load(path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
            logger.warning("%s cannot be read and is passed over: %s", path, str(error).partition("\n")[0])
        else:
            return str(path)
    raise FileNotFoundError(
        f"`folder` must hold a readable checkpoint of `{prefix}` to resume from, but got {folder} with "
        f"{len(files)} unreadable; start without `resume.yaml`."
    )
