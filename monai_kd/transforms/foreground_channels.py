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

"""Probabilities without the background."""

from __future__ import annotations

import torch


def foreground_channels(probabilities: torch.Tensor) -> torch.Tensor:
    """
    Leave out the background.

    Args:
        probabilities: tensor (C, *spatial). Channel 0 is background.

    Returns:
        the other channels (C - 1, *spatial).

    Example::

        >>> foreground_channels(torch.zeros(2, 4, 4)).shape
        torch.Size([1, 4, 4])
    """
    return probabilities[1:]
