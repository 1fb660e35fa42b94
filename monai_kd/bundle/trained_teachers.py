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

"""Several teachers of one architecture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from monai_kd.bundle.in_folder import in_folder
from monai_kd.networks import Teacher


def trained_teachers(names: Sequence[str], network: Callable[..., nn.Module] | Any, folder: str) -> list[Teacher]:
    """
    Make teachers that share an architecture and have weights of their own.

    Args:
        names: names of their files without suffix.
        network: builds the network of each, as for :py:class:`~monai_kd.networks.Teacher`.
        folder: folder of the files.

    Raises:
        FileNotFoundError: when weights are missing.

    Example::

        >>> trained_teachers([], None, "models")
        []
    """
    return [Teacher(network, in_folder(folder, name, ".pt")) for name in names]
