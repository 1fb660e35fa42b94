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

"""A supervised loss of several parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


class WeightedSumLoss(nn.Module):
    """
    Sums supervised losses with fixed weights.

    Args:
        losses: the parts by name. Each takes the logits and the label.
        weights: the weight of each part by the same names.

    Raises:
        ValueError: when `losses` is empty or `weights` has other names.

    Example::

        >>> loss = WeightedSumLoss({"bce": nn.BCELoss(), "mse": nn.MSELoss()}, {"bce": 1, "mse": 2})
        >>> float(loss(torch.ones(1), torch.ones(1)))
        0.0
    """

    def __init__(self, losses: Mapping[str, nn.Module], weights: Mapping[str, float]) -> None:
        super().__init__()
        if not losses:
            raise ValueError("`losses` must hold at least one loss, but got none.")
        if set(losses) != set(weights):
            raise ValueError(
                f"`weights` must have the names of `losses`, but got {', '.join(weights)} and {', '.join(losses)}."
            )
        self.weights = {name: float(weights[name]) for name in losses}
        for name, loss in losses.items():
            setattr(self, f"{name}_loss", loss)

    def forward(self, logits: Any, label: torch.Tensor) -> torch.Tensor:
        """
        Args:
            logits: output of the network.
            label: the label, in the form that the parts take.

        Returns:
            the sum, a scalar.
        """
        parts = [weight * getattr(self, f"{name}_loss")(logits, label) for name, weight in self.weights.items()]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total
