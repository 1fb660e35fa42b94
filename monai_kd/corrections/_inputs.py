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

"""What the corrections share: inputs checked and without metadata."""

from __future__ import annotations

import torch

from monai_kd.networks.teacher import plain


def check_soft_label(soft_label: torch.Tensor, label: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the soft label, detached, and the label as int64, both without metadata.

    Args:
        soft_label: probabilities (B, C, *spatial) that sum to 1 over C, or of the foreground alone (B, 1, *spatial).
        label: class indices (B, 1, *spatial) of any dtype.

    Raises:
        TypeError: when one of them is not a tensor.
        ValueError: when their shapes do not fit, or they do not hold probabilities and class indices.

    """
    for name, value in (("soft_label", soft_label), ("label", label)):
        if not isinstance(value, torch.Tensor):
            raise TypeError(f"`{name}` must be a tensor, but got {type(value).__name__}.")
    soft_label, label = plain(soft_label).detach(), plain(label)
    shape = tuple(soft_label.shape)
    if len(shape) not in (4, 5):
        raise ValueError(f"`soft_label` must be of shape (B, C, H, W) or (B, C, D, H, W), but got {shape}.")
    expected = (shape[0], 1, *shape[2:])
    if tuple(label.shape) != expected:
        raise ValueError(
            f"`label` must hold class indices of shape {expected}, but got {tuple(label.shape)}; "
            "a one-hot label wants `label.argmax(1, keepdim=True)`."
        )
    _check_probabilities(soft_label)
    return soft_label, _as_classes(label, max(2, shape[1]))


def check_size(name: str, tensor: torch.Tensor, soft_label: torch.Tensor) -> None:
    """Refuse what has another batch or spatial size than the soft label.

    Raises:
        ValueError: when they differ.

    """
    shape, size = tuple(tensor.shape), tuple(soft_label.shape)
    if (shape[0], *shape[2:]) != (size[0], *size[2:]):
        raise ValueError(f"`{name}` must have the batch and spatial size of `soft_label`, but got {shape} and {size}.")


def _check_probabilities(soft_label: torch.Tensor) -> None:
    if not soft_label.is_floating_point():
        raise ValueError(f"`soft_label` must hold floating-point probabilities, but got {soft_label.dtype}.")
    outside = ~((soft_label >= 0) & (soft_label <= 1))  # also NaN
    if outside.any():
        raise ValueError(
            f"`soft_label` must hold probabilities, but got {soft_label[outside][0].item():g}; logits want "
            "`.softmax(1)`, or `.sigmoid()` where they have one channel."
        )
    total = soft_label.sum(1, dtype=torch.float32)
    off = (total - 1).abs() > 0.01  # above what bfloat16 rounds away
    if soft_label.shape[1] > 1 and off.any():
        raise ValueError(
            f"`soft_label` must sum to 1 over the classes, but got {total[off][0].item():g}; apply `.softmax(1)`."
        )


def _as_classes(label: torch.Tensor, num_classes: int) -> torch.Tensor:
    classes = label.long()
    wrong = (classes < 0) | (classes >= num_classes) | (classes != label)
    if wrong.any():
        raise ValueError(
            f"`label` must hold whole class indices from 0 to {num_classes - 1}, but got {label[wrong][0].item():g}."
        )
    return classes
