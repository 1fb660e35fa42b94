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

"""The network of a teacher, for an evaluator."""

from __future__ import annotations

import torch
from torch import nn

from monai_kd.networks import Teacher, TeacherNetwork, TeacherTeam


def network_of(teacher: Teacher | TeacherTeam | None, device: torch.device | str) -> nn.Module | None:
    """
    Give a teacher, or a team of them, as a network on a device.

    Args:
        teacher: the teacher. A bundle that trains without distillation has none.
        device: the device of the evaluator.

    Returns:
        the network, or None without a teacher.

    Example::

        >>> network_of(None, "cpu") is None
        True
    """
    return None if teacher is None else TeacherNetwork(teacher).to(device)
