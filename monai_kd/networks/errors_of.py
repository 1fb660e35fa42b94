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

"""Errors that say what they are of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def errors_of(what: str) -> Iterator[None]:
    """Errors inside begin with what they are of."""
    try:
        yield
    except (RuntimeError, TypeError, ValueError) as error:
        if type(error) not in (RuntimeError, TypeError, ValueError):  # others may be built of more than a message
            raise
        raise type(error)(f"{what}: {error}") from error
