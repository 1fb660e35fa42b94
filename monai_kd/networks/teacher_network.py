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

"""A teacher, or a team of them, where a network is asked for."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from monai_kd.networks.teacher import Teacher
from monai_kd.networks.teacher_team import TeacherTeam


class TeacherNetwork(nn.Module):
    """
    Gives the logits of a teacher or of a :py:class:`~monai_kd.networks.TeacherTeam` as a network does, so that an
    evaluator can score it. It has no parameters of its own.

    Args:
        teacher: the teacher.

    Shapes: (B, C, *spatial) to logits (B, classes, *spatial).

    Example::

        >>> network = TeacherNetwork(Teacher(nn.Conv2d(1, 2, 1)))
        >>> network(torch.zeros(1, 1, 8, 8)).shape
        torch.Size([1, 2, 8, 8])
    """

    def __init__(self, teacher: Teacher | TeacherTeam) -> None:
        super().__init__()
        self.teacher = teacher

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """
        Args:
            image: (B, C, *spatial).
        """
        return self.teacher(image).logits

    def to(self, *args: Any, **kwargs: Any) -> TeacherNetwork:
        """
        Args:
            args: a device first; the precision of a teacher stays.
            kwargs: as of :py:meth:`torch.nn.Module.to`.
        """
        device = kwargs.get("device", args[0] if args else None)
        if isinstance(device, (str, torch.device)):
            self.teacher.to(device)
        return self

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """The weights and buffers of the teacher, or of all of a team."""
        return self.teacher.named_tensors()
