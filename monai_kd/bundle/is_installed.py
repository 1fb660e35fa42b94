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

"""Packages that a bundle uses where they are there."""

from __future__ import annotations

from monai.utils import optional_import


def is_installed(module: str) -> bool:
    """
    Tell whether a module can be imported.

    Args:
        module: its dotted name.

    Example::

        >>> is_installed("torch.nn"), is_installed("no_such_package")
        (True, False)
    """
    return bool(optional_import(module)[1])
