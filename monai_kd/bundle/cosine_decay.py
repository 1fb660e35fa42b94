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

"""A learning rate that falls along a cosine."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def cosine_decay(epochs: int, least: float = 0.001) -> Callable[[int], float]:
    """
    Make the factor of a learning rate that falls along half a cosine and then stays.

    ``torch.optim.lr_scheduler.CosineAnnealingLR`` rises again after its end. This does not, so a
    training may be longer than its schedule.

    Args:
        epochs: length of the cosine.
        least: the factor at the end.

    Returns:
        a function of the epoch for ``LambdaLR``. It is a function and not an object, whose state a
        checkpoint would bring back: a training that is resumed may have another length.

    Raises:
        ValueError: when `epochs` is below 1 or `least` does not lie between 0 and 1.

    Example::

        >>> [round(cosine_decay(4)(epoch), 3) for epoch in range(6)]
        [1.0, 0.854, 0.5, 0.146, 0.001, 0.001]
    """
    if epochs < 1:
        raise ValueError(f"`epochs` must be >= 1, but got {epochs}.")
    if not 0 <= least <= 1:
        raise ValueError(f"`least` must lie between 0 and 1, but got {least}.")

    def factor(epoch: int) -> float:
        cosine = float(np.cos(np.pi * min(1, epoch / epochs)))  # a checkpoint takes no NumPy number
        return max(least, 0.5 + 0.5 * cosine)

    return factor
