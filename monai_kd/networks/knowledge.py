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

"""What a network says about a batch: its outputs and the features that were asked for."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch


@dataclass
class Knowledge:
    """
    What a network says about a batch. The student's and the teacher's have the same form, so that a
    :py:class:`~monai_kd.handlers.DistillationTerm` can pair them.

    Args:
        outputs: what the forward pass returned: one logits tensor (B, C, *spatial), or several where a network
            supervises several scales, the one of full resolution first.
        features: captured inner maps by layer name, (B, C, *spatial) each.
        members: what each teacher of a team says, by its name. Empty for a single network.

    Example::

        >>> import torch
        >>> knowledge = Knowledge([torch.zeros(1, 2, 8, 8)])
        >>> knowledge.logits.shape
        torch.Size([1, 2, 8, 8])
    """

    outputs: list[torch.Tensor]
    features: dict[str, torch.Tensor] = field(default_factory=dict)
    members: dict[str, Knowledge] = field(default_factory=dict)

    @property
    def logits(self) -> torch.Tensor:
        """The logits of full resolution. Assigning replaces them."""
        return self.outputs[0]

    @logits.setter
    def logits(self, value: torch.Tensor) -> None:
        self.outputs[0] = value

    def of(self, member: str | None) -> Knowledge:
        """The knowledge of one member of a team, or the whole where ``member`` is None."""
        return self if member is None else self.members[member]
