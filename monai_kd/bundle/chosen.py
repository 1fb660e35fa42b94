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

"""One of several named choices of a bundle."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any


def chosen(name: str, choice: Any, choices: Mapping[str, Any]) -> Any:
    """
    What stands under a choice, as ``weights: auto`` or ``weights: paper`` in a bundle's configuration.

    Args:
        name: the id that a person sets, for the error message.
        choice: what was set.
        choices: what there is.

    Raises:
        ValueError: when there is no such choice.

    Example::

        >>> chosen("weights", "paper", {"auto": 1, "paper": 2})
        2
    """
    if isinstance(choice, str) and choice in choices:
        return choices[choice]
    nearest = difflib.get_close_matches(str(choice), list(choices), n=1, cutoff=0.0)
    raise ValueError(f"`{name}` must be one of {', '.join(choices)}, but got {choice!r}; did you mean {nearest[0]}?")
