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

"""What helps where a file system refuses."""

from __future__ import annotations

import errno

REMEDIES = {
    errno.EACCES: "choose a folder that you may write to",
    errno.EROFS: "choose a folder that you may write to",
    errno.ENOTDIR: "choose a folder",
    errno.ENOSPC: "make room on the disk",
    errno.EDQUOT: "make room on the disk",
    errno.EFBIG: "make room on the disk",
}


def with_remedy(line: str, error: BaseException) -> str:
    """
    The line of an error, and what helps where a file system refuses.

    Args:
        line: what is said of it.
        error: the error.

    Example::

        >>> with_remedy("full", OSError(errno.ENOSPC, "full"))
        'full; make room on the disk'
    """
    code = error.errno if isinstance(error, OSError) else None
    return f"{line}; {REMEDIES[code]}" if code in REMEDIES and "; " not in line else line
