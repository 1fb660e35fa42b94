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

"""Files of weights that are whole."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from typing import Any

import torch
from monai.config import PathLike

from monai_kd.data import write_aside


def write_weights(content: Mapping[str, Any], path: PathLike) -> None:
    """
    Write weights or a checkpoint by ``torch.save`` to a file that is replaced as a whole.

    Args:
        content: what ``torch.save`` takes.
        path: the file; its folder is made if it is missing.

    Raises:
        OSError: when it cannot be written. Of a full disk torch says "unexpected pos".

    Example::

        >>> import tempfile
        >>> write_weights(torch.nn.Linear(2, 1).state_dict(), f"{tempfile.mkdtemp()}/model.pt")
    """
    try:
        with write_aside(path, sync=True) as aside:
            torch.save(content, aside)
    except RuntimeError as error:
        if "inline_container" not in str(error):
            raise
        reason = str(error).splitlines()[0]
        message = f"weights must fit on the disk, but torch could not write them to their end, {reason}; make room"
        raise OSError(errno.ENOSPC, message, os.fspath(path)) from error
