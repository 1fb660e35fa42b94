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

"""A file or a folder below another one."""

from __future__ import annotations


def in_folder(folder: str, name: str, suffix: str = "") -> str:
    """
    Name a file or a folder of a bundle, as ``models/teacher.pt``.

    Args:
        folder: the folder that holds it.
        name: its name.
        suffix: the end of its name, ``.pt``.

    Returns:
        the path, with ``/`` on every system, as a configuration writes it.

    Example::

        >>> in_folder("models", "teacher", ".pt")
        'models/teacher.pt'
    """
    return f"{folder}/{name}{suffix}"
