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

"""Settings of a run that come from its weights."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from monai_kd.networks.weights_facts import read_facts


def as_trained(path: str | os.PathLike, name: str, default: Any = None) -> Any:
    """
    Find out what the weights of a file were trained with, so that inference, evaluation and export need no flag.

    Args:
        path: file of the weights. It may be missing: a configuration is also read before the training.
        name: what is asked for, as ``image_size``.
        default: the answer where the file is missing or does not hold it.

    Raises:
        ValueError: when the file is damaged.

    Example::

        >>> as_trained("models/not_trained_yet.pt", "image_size", [352, 352])
        [352, 352]
    """
    if not Path(path).is_file():
        return default
    try:
        return read_facts(path).get(name, default)
    except Exception as error:  # torch and pickle raise a dozen kinds for a damaged file
        raise ValueError(
            f"weights must be a file that `torch.save` wrote, but got {path}: "
            f"{type(error).__name__}; copy the file again, or train it again."
        ) from error
