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

"""What the losses over classes share: classes that exclude each other (softmax), or overlap (sigmoid)."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ._inputs import check_shares, plain

ACTIVATIONS = ("softmax", "sigmoid")
OVERLAP = 1.05  # above the sum of shares that half precision rounds


def bernoulli_divergence(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """Return KL(p_teacher || p_student) of independent channels, p = sigmoid(logits), summed over them, (B, *spatial).

    Args:
        student: logits (B, C, *spatial), divided by the temperature.
        teacher: logits of the same shape.

    """
    divergence = torch.zeros_like(student[:, 0])
    for sign in (1, -1):  # foreground and background
        log_student, log_teacher = F.logsigmoid(sign * student), F.logsigmoid(sign * teacher)
        divergence = divergence + F.kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(dim=1)
    return divergence


def overlapping_masks(label: torch.Tensor | None, student: torch.Tensor, needed_by: str) -> torch.Tensor:
    """Return the masks of the background, where no class is, and of each class, (B, 1 + C, *spatial).

    Args:
        label: a mask for each channel of the student, (B, C, *spatial); classes may overlap.
        student: logits (B, C, *spatial).
        needed_by: what needs the label, for the error message.

    Raises:
        ValueError: when the label is missing, of another number of channels, or (on the CPU) not from 0 to 1.

    """
    if label is None:
        raise ValueError(f"`label` must be given for {needed_by}, but got None.")
    if label.shape[:2] != student.shape[:2] or label.ndim != student.ndim:
        raise ValueError(
            '`label` must hold a mask for each channel of `student` with `activation="sigmoid"`, '
            f"but got {tuple(label.shape)} and {tuple(student.shape)}."
        )
    masks = plain(label)
    check_shares("label", masks, "a mask of each class")
    masks = masks.to(student.dtype)
    return torch.cat([1 - masks.amax(dim=1, keepdim=True), masks], dim=1)


class OverlapCheck:
    """
    Refuses a label whose classes overlap, of which a softmax over the channels makes nonsense. On the CPU each label is
    looked at; on an accelerator the largest sum is kept there and read at the calls 1, 2, 4, 8, ..., so that the device
    is waited for a few times in a run.

    Args:
        remedy: what to do instead, for the error message.
    """

    def __init__(self, remedy: str) -> None:
        self.remedy = remedy
        self._calls = 0
        self._most: torch.Tensor | None = None

    def __call__(self, label: object, student: torch.Tensor) -> None:
        """
        Args:
            label: a label of any kind; looked at if it has the channels of the student, two or more.
            student: logits (B, C, *spatial).

        Raises:
            ValueError: when a pixel is of several classes.

        """
        channels = student.shape[1]
        if torch.compiler.is_compiling() or not isinstance(label, torch.Tensor) or label.ndim != student.ndim:
            return
        if channels == 1 or label.shape[1] != channels:
            return
        most = plain(label).detach().sum(dim=1, dtype=torch.float32).amax()
        self._calls += 1
        if self._most is not None and self._most.device == most.device:
            most = torch.maximum(most, self._most)
        self._most = most
        if label.device.type != "cpu" and self._calls & (self._calls - 1):
            return
        self._most = None
        if most > OVERLAP:
            raise ValueError(
                f"`label` must be of one class at each pixel where a softmax runs over the {channels} channels, "
                f"but got classes that overlap (a sum of {most.item():g}); {self.remedy}."
            )
