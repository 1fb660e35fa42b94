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

"""
What the channels of logits and of soft labels mean. Several channels are classes that exclude each
other. One channel z is the foreground of two classes with the logits (0, z).
"""

from __future__ import annotations

import torch


def two_channels(logits: torch.Tensor) -> torch.Tensor:
    """Logits (B, C, *spatial) with one channel for each class: (0, z) of one channel, others as they are."""
    if logits.shape[1] > 1:
        return logits
    return torch.cat([torch.zeros_like(logits), logits], dim=1)


def of_two(foreground: torch.Tensor, dim: int = 1) -> torch.Tensor:
    """Probabilities with one channel for each class: (1 - p, p) of one channel, others as they are."""
    if foreground.shape[dim] > 1:
        return foreground
    return torch.cat([1 - foreground, foreground], dim=dim)


def probabilities(logits: torch.Tensor, dim: int = 1) -> torch.Tensor:
    """
    The probabilities that logits mean: their softmax over the classes, of one channel their sigmoid.

    Args:
        logits: (B, C, *spatial).
        dim: where the channels are.

    Example::

        >>> probabilities(torch.zeros(1, 1, 1, 1)).item()
        0.5
    """
    return logits.sigmoid() if logits.shape[dim] == 1 else logits.softmax(dim=dim)


def classes_of(logits: torch.Tensor) -> torch.Tensor:
    """The most probable class (B, 1, *spatial) of logits, the first of equal ones."""
    return (logits > 0).long() if logits.shape[1] == 1 else logits.argmax(dim=1, keepdim=True)


def most_probable(soft_label: torch.Tensor) -> torch.Tensor:
    """The most probable class (B, 1, *spatial) of probabilities, the first of equal ones."""
    if soft_label.shape[1] == 1:
        return (soft_label > 0.5).long()
    return soft_label.argmax(1, keepdim=True)


def largest(soft_label: torch.Tensor) -> torch.Tensor:
    """The probability (B, 1, *spatial) of the most probable class."""
    return of_two(soft_label).amax(1, keepdim=True)


def foreground(soft_label: torch.Tensor) -> torch.Tensor:
    """The probability (B, 1, *spatial) of all classes but the background, class 0."""
    return soft_label if soft_label.shape[1] == 1 else 1 - soft_label[:, :1]
