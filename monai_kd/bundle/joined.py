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

"""Lists of a bundle, one behind the other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def joined(lists: Sequence[Sequence[Any]]) -> list[Any]:
    """
    Join lists and leave out what is None: components that a bundle has disabled.

    Args:
        lists: the lists in their order.

    Example::

        >>> joined([["distillation", None], ["validation"]])
        ['distillation', 'validation']
    """
    return [item for each in lists for item in each if item is not None]
