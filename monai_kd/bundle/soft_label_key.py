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

"""The fingerprint of a teacher team."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai.config import PathLike

from monai_kd.corrections.weights_key import file_digest


def soft_label_key(
    needed: bool,
    teacher: PathLike,
    assistants: Mapping[str, PathLike],
    used: Mapping[str, bool],
    max_candidates: int | None = None,
) -> str | bool:
    """
    Name what a soft label is made with. A stored one must have the same, and what differs is told
    by its name.

    Args:
        needed: whether soft labels are read or stored. Otherwise no file is opened.
        teacher: weights of the teacher.
        assistants: weights of the assistants by name, in the order of their corrections.
        used: which corrections are on, in their order. Those that are no assistants have no
            weights.
        max_candidates: of :py:class:`~monai_kd.corrections.SimilarityCorrection`.

    Returns:
        the checksums of the weights and the settings as JSON, or False where none is needed.

    Raises:
        FileNotFoundError: when weights are missing.

    Example::

        >>> soft_label_key(False, "teacher.pt", {}, {})
        False
    """
    if not needed:
        return False
    asked = {f"assistant {name}": path for name, path in assistants.items() if used[name]}
    weights = {"teacher": teacher, **asked}
    found: dict[str, Any] = {f"weights of {name}": file_digest(Path(path)).hex()[:16] for name, path in weights.items()}
    found |= {f"use_{name}": bool(on) for name, on in used.items()}
    return json.dumps(found | {"max_candidates": max_candidates})
