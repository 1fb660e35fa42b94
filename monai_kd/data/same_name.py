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

"""Names that differ in their bytes alone."""

from __future__ import annotations

import unicodedata


def same_name(name: str) -> str:
    """
    One form of a name, by which files of macOS and rows of a table match: macOS stores an accented letter as the letter
    and its accent (NFD), other systems as one character (NFC).

    Args:
        name: of a file, a case or a data set.

    Returns:
        the name in NFC.

    Example::

        >>> same_name("Mu\u0308ller") == "M\u00fcller"
        True
    """
    return unicodedata.normalize("NFC", name)
