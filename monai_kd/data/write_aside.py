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

"""Files that are replaced as a whole or not at all."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock
from monai.config import PathLike

PREFIX = ".partial-"
LOCK = ".lock"
SETTLED = 10.0  # seconds after which a folder of a process that lives is locked


@contextmanager
def write_aside(path: PathLike, sync: bool = False) -> Iterator[Path]:
    """
    Gives a path to write to, in a hidden folder beside the file. When the block ends the file is replaced by what was
    written. When it fails, on a full disk or by Ctrl-C, what was written is removed and the earlier file stays.

    - The name and its suffix are those of the file, since many writers choose the format by them. A second file that
      the writer puts beside the first (``.bin`` beside OpenVINO's ``.xml``) replaces its own earlier one.
    - The file has the permissions that ``open(path, "w")`` gives. One that cannot be written to is refused.
    - A symbolic link stays, and the file that it points to is replaced. A device or a pipe is written to directly.
    - On Windows a file that another program holds open cannot be replaced: ``PermissionError``, and it stays.

    Args:
        path: the file; its folder is made if it is missing.
        sync: whether the content must be on the disk before the earlier one goes, against a loss of power.

    Raises:
        OSError: when the file cannot be written.

    Example::

        >>> import tempfile
        >>> with write_aside(f"{tempfile.mkdtemp()}/scores.txt") as aside:
        ...     size = aside.write_text("0.9")
    """
    if _is_stream(path):
        yield Path(path)
        return
    target = Path(os.path.realpath(path))
    _check(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with _folder_beside(target) as folder:
        yield folder / target.name
        parts = [part for part in sorted(folder.iterdir()) if part.name != LOCK]
        for part in parts:
            _check(target.with_name(part.name))
        for part in parts:
            _move(part, target.with_name(part.name), sync)


@contextmanager
def folder_aside(path: PathLike) -> Iterator[Path]:
    """
    Gives an empty folder to fill, beside a folder that is new or empty. When the block ends it is that folder. When it
    fails or is killed, the new folder is not there.

    Args:
        path: the new folder; the one that it lies in is made if it is missing.

    Raises:
        OSError: when the folder is not empty, or cannot be written.

    Example::

        >>> import tempfile
        >>> with folder_aside(f"{tempfile.mkdtemp()}/bundle") as aside:
        ...     size = (aside / "LICENSE").write_text("free")
    """
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    remove_left(target.parent)
    with _folder_beside(target) as folder:
        inside = folder / target.name
        inside.mkdir()
        yield inside
        if target.exists():
            target.rmdir()  # which refuses what is not empty
        os.replace(inside, target)


def replace_file(path: PathLike, content: str | bytes) -> Path:
    r"""
    Write a file as a whole or not at all, by :py:func:`write_aside`.

    Args:
        path: the file; its folder is made if it is missing.
        content: bytes, or a text, which is written as UTF-8 with ``\n`` on every system.

    Returns:
        the path.

    Example::

        >>> import tempfile
        >>> replace_file(f"{tempfile.mkdtemp()}/scores.txt", "0.9").read_text()
        '0.9'
    """
    with write_aside(path) as aside:
        aside.write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    return Path(path)


def remove_left(folder: PathLike) -> None:
    """
    Remove what processes left in a folder that were killed while they wrote there. What others write to now stays.

    Args:
        folder: the folder of the files, which may be missing.
    """
    for left in Path(folder).glob(f"{PREFIX}*"):
        with suppress(OSError, NotImplementedError):  # of another user, or without locks
            if time.time() - left.stat().st_mtime > SETTLED:
                lock = FileLock(left / LOCK)
                lock.acquire(timeout=0)
                _remove(left, lock)


def _is_stream(path: PathLike) -> bool:
    """Whether there is nothing to replace: a device, a pipe, or ``/dev/stdout`` wherever it leads."""
    of_process = os.path.islink(path) and os.path.abspath(path).startswith(("/dev/", "/proc/"))
    return of_process or (os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path))


def _check(target: Path) -> None:
    """What ``open`` would refuse."""
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
    if target.exists() and not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(target))


@contextmanager
def _folder_beside(target: Path) -> Iterator[Path]:
    """A folder of this block alone. Its lock tells others that the process lives."""
    folder = target.with_name(PREFIX + secrets.token_hex(8))
    lock = FileLock(folder / LOCK)
    try:
        try:
            folder.mkdir()
        except OSError as error:
            error.filename = str(target)  # the name that the user knows
            raise
        with suppress(OSError, NotImplementedError):  # a file system without locks
            lock.acquire(timeout=0)
        yield folder
    finally:
        _remove(folder, lock)


def _remove(folder: Path, lock: FileLock) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    lock.release(force=True)
    shutil.rmtree(folder, ignore_errors=True)  # on Windows the file of a lock that is held stays


def _move(part: Path, target: Path, sync: bool) -> None:
    if sync:
        with part.open("rb+") as file:
            os.fsync(file.fileno())
    if target.exists():
        shutil.copymode(target, part)
    else:  # some writers let nobody else read
        part.chmod(part.parent.stat().st_mode & 0o666)
    os.replace(part, target)
