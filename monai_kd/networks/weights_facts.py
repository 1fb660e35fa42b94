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

"""What weights were trained for, kept in their file."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any

import torch

from monai_kd._private_attributes import metadata_of

KEY = "monai_kd"  # beside the versions of the modules, which torch keeps there


def with_facts(state_dict: Any, facts: Mapping[str, Any]) -> Any:
    """
    A state dict that also says what its weights were trained for. Its entries stay as they are, so that every tool
    loads it as before.

    Args:
        state_dict: what ``network.state_dict()`` gave.
        facts: texts, numbers, and lists and mappings of them, such as the image size and the window.

    Returns:
        the state dict, with the facts in its metadata.

    Raises:
        TypeError: when the state dict has no metadata, as a plain dictionary.
    """
    metadata = metadata_of(state_dict)
    if metadata is None:
        raise TypeError(
            f"`state_dict` must come from `network.state_dict()`, but got {type(state_dict).__name__} without metadata."
        )
    metadata[KEY] = dict(facts)
    return state_dict


def facts_of(content: Any) -> dict[str, Any]:
    """What a loaded file of weights says of them; empty if it says nothing."""
    candidates = [content]
    if isinstance(content, Mapping):
        candidates += content.values()
    for each in candidates:
        found = (metadata_of(each) or {}).get(KEY)
        if found:
            return dict(found)
    return {}


def read_facts(path: str | PathLike) -> dict[str, Any]:
    """
    What a file of weights says of them.

    Args:
        path: a file that ``torch.save`` wrote; read with ``weights_only=True``, without its tensors.

    Returns:
        the facts; empty if there are none.

    Example::

        >>> import tempfile
        >>> network = torch.nn.Linear(2, 2)
        >>> with tempfile.NamedTemporaryFile(suffix=".pt") as file:
        ...     torch.save(with_facts(network.state_dict(), {"image_size": [96, 96]}), file.name)
        ...     read_facts(file.name)
        {'image_size': [96, 96]}
    """
    return facts_of(torch.load(path, map_location="cpu", weights_only=True, mmap=True))
