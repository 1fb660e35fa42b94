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

"""A progress bar where tqdm is installed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeVar

from monai.utils import optional_import

tqdm, has_tqdm = optional_import("tqdm", name="tqdm")
Item = TypeVar("Item")


def progress_bar(items: Iterable[Item], description: str, total: int, show: bool = True) -> Iterator[Item]:
    """
    Goes through the items behind a progress bar of tqdm; without tqdm, or with `show` false, in silence.

    Args:
        items: what to go through.
        description: what is done with them, in front of the bar.
        total: how many they are.
        show: whether to show the bar.

    Example::

        >>> list(progress_bar([1, 2], "counting", 2, show=False))
        [1, 2]
    """
    return iter(tqdm(items, desc=description, total=total) if show and has_tqdm else items)
