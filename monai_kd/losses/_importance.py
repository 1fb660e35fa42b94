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

"""What the losses on importance maps (EMKD) and on attention maps (attention transfer) share."""

from __future__ import annotations

import math

import torch


def importance_map(feature: torch.Tensor, exponent: float) -> torch.Tensor:
    """Return the mean over channels of |feature|^exponent, (B, 1, *spatial)."""
    return _power(feature, exponent).mean(dim=1, keepdim=True)


def check_exponent(exponent: float) -> None:
    """Refuse an exponent below 1: the gradient at a feature of 0 would be infinite.

    Raises:
        ValueError: when it is not a finite number of at least 1.

    """
    if not 1 <= exponent < math.inf:
        raise ValueError(f"`exponent` must be a finite number of at least 1, but got {exponent}.")


def _power(feature: torch.Tensor, exponent: float) -> torch.Tensor:
    if exponent == 4:  # twice squared: many times faster than a general power, and the teacher's in place
        squares = feature.square()
        return squares.square() if squares.requires_grad else squares.square_()
    return (feature.abs() if exponent % 2 else feature).pow(exponent)
