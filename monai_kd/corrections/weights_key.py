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

"""What stored soft labels come from."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from monai.config import PathLike


def weights_key(checkpoints: Sequence[PathLike], *settings: object) -> str:
    """
    A fingerprint of the networks that made a soft label, by which a stored one is known to be out of date.

    Args:
        checkpoints: files of the weights of teacher and assistants; their content counts, not their names.
        settings: whatever else a soft label depends on, as the names of the corrections.

    Returns:
        32 hexadecimal digits.

    Raises:
        FileNotFoundError: when a file is missing.

    Example::

        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "teacher.pt"
        >>> _ = file.write_bytes(b"weights")
        >>> weights_key([file], "similarity") == weights_key([file])
        False
    """
    digest = hashlib.blake2b(digest_size=16)
    for path in map(Path, checkpoints):
        digest.update(file_digest(path))
    digest.update(repr([str(setting) for setting in settings]).encode())
    return digest.hexdigest()


def file_digest(path: Path) -> bytes:
    """
    A fingerprint of the content of a file of weights.

    Raises:
        FileNotFoundError: when the file is missing.
    """
    if not path.is_file():
        raise FileNotFoundError(f"`checkpoints` must be files of weights, but got {path}; train the networks first.")
    content = hashlib.blake2b()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(2**20), b""):
            content.update(block)
    return content.digest()
