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

from collections.abc import Mapping

from monai.config import PathLike

from monai_kd.corrections import weights_key


def soft_label_key(
    needed: bool,
    teacher: PathLike,
    assistants: Mapping[str, PathLike],
    used: Mapping[str, bool],
    max_candidates: int | None = None,
) -> str | bool:
    """
    Compute the fingerprint of those who make a soft label. A stored one must have the same.

    Args:
        needed: whether soft labels are read or stored. Otherwise no file is opened.
        teacher: weights of the teacher.
        assistants: weights of the assistants by name, in the order of their corrections.
        used: which corrections are on, in their order. Those that are no assistants have no
            weights.
        max_candidates: of :py:class:`~monai_kd.corrections.SimilarityCorrection`.

    Returns:
        32 hexadecimal digits, or False where none is needed.

    Raises:
        FileNotFoundError: when weights are missing.

    Example::

        >>> soft_label_key(False, "teacher.pt", {}, {})
        False
    """
    if not needed:
        return False
    asked = [path for name, path in assistants.items() if used[name]]
    return weights_key([teacher, *asked], *used.values(), max_candidates)
