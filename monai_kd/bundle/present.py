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

"""What a bundle has of what it may have."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def present(things: Mapping[str, Any]) -> dict[str, Any]:
    """
    A mapping without what is None: components that a bundle has disabled.

    Example::

        >>> present({"model": 1, "distillation": None})
        {'model': 1}
    """
    return {name: thing for name, thing in things.items() if thing is not None}
