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

"""A number with a limit."""

from __future__ import annotations


def at_most(number: int, limit: int) -> int:
    """
    Limit a number by another one.

    An interval of validation must not exceed the epochs of a training, so a trial of one epoch is
    validated too.

    Args:
        number: the number.
        limit: the largest number that is allowed.

    Example::

        >>> at_most(2, limit=60), at_most(2, limit=1)
        (2, 1)
    """
    return min(number, limit)
