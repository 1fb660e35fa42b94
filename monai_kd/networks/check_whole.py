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

"""Whether a file of weights is as it was written."""

from __future__ import annotations

import os
import zipfile
from functools import lru_cache
from pathlib import Path


def check_whole(path: str | os.PathLike[str]) -> None:
    """
    Compare what ``torch.save`` wrote with the checksums in the file, which ``torch.load`` does not look at: a bit that
    flipped in a weight is loaded without an error. Files of another form pass, and so do those without checksums
    (``torch.serialization.set_crc32_options(False)``). A file that has not changed since is not read again.

    Args:
        path: the file.

    Raises:
        ValueError: when a part of the file is damaged.

    Example::

        >>> import tempfile, torch
        >>> with tempfile.NamedTemporaryFile(suffix=".pt") as file:
        ...     torch.save({"weight": torch.ones(1)}, file.name)
        ...     check_whole(file.name)
    """
    state = os.stat(path)
    _compare(Path(path), state.st_ino, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=64)
def _compare(path: Path, *state: int) -> None:
    if not zipfile.is_zipfile(path):
        return
    try:
        with zipfile.ZipFile(path) as archive:
            checksums = any(member.CRC for member in archive.infolist())
            damaged = archive.testzip() if checksums else None
    except Exception as error:  # `zipfile` raises a dozen kinds for what is between the parts
        raise ValueError(str(error)) from error
    if damaged:
        raise ValueError(f"{damaged} in it has another checksum")
