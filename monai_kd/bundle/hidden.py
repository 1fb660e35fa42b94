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

"""What a process does not show."""

from __future__ import annotations


def hidden(shown: bool, rank: int) -> bool:
    """
    Tell whether a process leaves out a progress bar or a log. The first process alone shows it.

    Args:
        shown: whether it is shown at all.
        rank: number of the process.

    Example::

        >>> hidden(True, rank=0), hidden(True, rank=1), hidden(False, rank=0)
        (False, True, True)
    """
    return not shown or rank > 0
