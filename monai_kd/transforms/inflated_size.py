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

"""Compressed data, read to their checksum."""

from __future__ import annotations

import zlib
from functools import cache
from pathlib import Path
from typing import BinaryIO

WITH_CHECKSUM = 47  # zlib's number for gzip or zlib data, whichever they are
GZIP = b"\x1f\x8b"
STEP = 1 << 22  # bytes


def inflated_size(path: Path, start: int = 0) -> int:
    """
    Reads gzip or zlib data to the checksum, once in a process for a file of one size and time. Readers stop at the last
    voxel, where the checksum has not come yet, so that one wrong bit gives other values without an error.

    Args:
        path: the file.
        start: where the data start.

    Returns:
        how many bytes they hold.

    Raises:
        ValueError: when they are damaged or truncated.

    Example::

        >>> import os, tempfile
        >>> path = Path(tempfile.mkdtemp(), "data.gz")
        >>> path.write_bytes(zlib.compress(bytes(1000))), inflated_size(path)
        (17, 1000)
    """
    state = path.stat()
    return _size_of(path.resolve(), start, state.st_size, state.st_mtime_ns)


@cache
def _size_of(path: Path, start: int, *state: int) -> int:
    with path.open("rb") as stream:
        stream.seek(start)
        try:
            return _inflated_size(stream)
        except zlib.error as error:
            raise ValueError(f"its compressed data are damaged, {error}; copy it once more.") from error


def _inflated_size(stream: BinaryIO) -> int:
    """In steps, since some MB of air are GB of zeros."""
    size, part = 0, zlib.decompressobj(WITH_CHECKSUM)
    data = stream.read(STEP)
    while data:
        size += len(part.decompress(data, STEP))
        if not part.eof:
            data = part.unconsumed_tail or stream.read(STEP)
            continue
        data = part.unused_data or stream.read(STEP)
        if not data.startswith(GZIP):
            break
        part = zlib.decompressobj(WITH_CHECKSUM)  # another member
    if not part.eof:
        size += len(part.flush())
    if not part.eof:
        raise ValueError("its compressed data are truncated; copy it once more.")
    return size
