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

"""Weights that have to be there before a run."""

from __future__ import annotations

import os
from pathlib import Path

from monai_kd.networks.check_whole import check_whole


def trained_weights(path: str | os.PathLike, remedy: str) -> str:
    """
    Check that weights were trained and are whole, before data is read and networks are built.

    Args:
        path: file of the weights.
        remedy: what makes them, told where they are missing.

    Returns:
        the path.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it is damaged.

    Example, in a bundle's ``CheckpointLoader``::

        load_path: "$monai_kd.bundle.trained_weights(@best_ckpt, 'the same command without evaluate.yaml')"
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"weights must be trained first, but got no file {path}; {remedy} makes it.")
    try:
        check_whole(path)
    except ValueError as error:
        raise ValueError(
            f"weights must be whole, but got {path}, which is damaged: {error}; copy the file again, or {remedy} "
            "makes it."
        ) from error
    return str(path)
