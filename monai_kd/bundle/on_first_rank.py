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

"""What the first process shows."""

from __future__ import annotations

from monai_kd.bundle.hidden import hidden


def on_first_rank(shown: bool, rank: int) -> bool:
    """
    Tell whether a process shows a progress bar. It is the opposite of
    :py:func:`~monai_kd.bundle.hidden`.

    Args:
        shown: whether it is shown at all.
        rank: number of the process.

    Example::

        >>> on_first_rank(True, rank=0), on_first_rank(True, rank=1), on_first_rank(False, rank=0)
        (True, False, False)
    """
    return not hidden(shown, rank)
