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

"""What the monitor of classes sees where classes overlap."""

from __future__ import annotations

import torch

from monai_kd.networks._plain import plain


def with_background(
    student: torch.Tensor, label: torch.Tensor | None, teacher: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
    """
    Predictions and label with a channel 0 for pixels without any class, so that the largest channel is a class.

    Args:
        student: logits (B, C, *spatial), a sigmoid for each channel; of one channel it is left as it is.
        label: a mask for each channel, or None.
        teacher: logits of the student's shape.

    Returns:
        student, label and teacher, (B, 1 + C, *spatial).
    """
    if student.shape[1] == 1:
        return student, label, teacher
    if label is not None and label.shape[1] == student.shape[1]:
        label = _in_front(0.5, plain(label).to(student.dtype))
    return _in_front(0.0, plain(student)), label, _in_front(0.0, plain(teacher))


def _in_front(value: float, channels: torch.Tensor) -> torch.Tensor:
    return torch.cat([torch.full_like(channels[:, :1], value), channels], dim=1)
