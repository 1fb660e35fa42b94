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

"""Batch normalisation of a globally pooled map, which a batch of one does not break."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class PooledBatchNorm(nn.BatchNorm2d):
    """
    Batch normalisation for maps of one pixel: :py:class:`torch.nn.BatchNorm2d`, but a training batch of one is
    normalised with the running statistics.

    With one image and one pixel a channel has a single value: it has no variance, and BatchNorm2d raises "Expected more
    than 1 value per channel when training". Such a batch leaves the running statistics as they are, so a network that
    only ever sees batches of one trains and predicts with the same normalisation.

    Args:
        num_features: channels.

    Example::

        >>> import torch
        >>> PooledBatchNorm(4).train()(torch.ones(1, 4, 1, 1)).shape
        torch.Size([1, 4, 1, 1])
    """

    momentum: float  # never None here; the annotation is what the scripting compiler reads

    def __init__(self, num_features: int) -> None:
        super().__init__(num_features)

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        """
        Args:
            pooled: (B, C, 1, 1).

        Returns:
            (B, C, 1, 1).
        """
        batch_statistics = self.training and pooled.shape[0] > 1
        return F.batch_norm(
            pooled,
            self.running_mean,
            self.running_var,
            weight=self.weight,
            bias=self.bias,
            training=batch_statistics,
            momentum=self.momentum,
            eps=self.eps,
        )
