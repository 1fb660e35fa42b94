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

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from ._inputs import as_inputs, autocast_disabled, check_option
from ._nodes import check_pool, pool_nodes, unit_vectors


class PairwiseAffinityLoss(nn.Module):
    """
    Pull the similarity of each two places of an image in the student towards that in the teacher.

    With f_i the feature of node i, a cell of the feature map pooled to N nodes, and B images::

        a_ij = f_i . f_j / (||f_i|| ||f_j||)
        loss = 1 / (B N^2) * sum over images, i and j of (a_ij of the student - a_ij of the teacher)^2

    Pair-wise distillation of Liu et al., "Structured Knowledge Distillation for Semantic Segmentation", CVPR 2019
    (arXiv:1903.04197), Eq. 2 and 3; the EMKD paper compares with it as PA.

    - The default is the released code: 2 nodes along each axis, each the maximum over half a side, and a gradient that
      takes the lengths ||f_i|| for constants. The value does not depend on the lengths, yet this gradient also changes
      them; on random features it was 1.4 to 5 times as long as the true one, which ``detach_norm=False`` gives.
    - The paper pools by the average and varies the number of nodes: ``PairwiseAffinityLoss(pool=n,
      pool_mode="average")``.
    - Where a side cannot be halved, the released code leaves a third node of the remaining pixel. Here the nodes
      overlap by a pixel, and there are as many as ``pool`` says.
    - Each axis has at most the nodes that the smaller of both maps has pixels, so that student and teacher may differ
      in size. The similarities of a batch may hold 2^28 values, 1 GiB: 5792 nodes for 8 images.

    A feature shorter than 1e-8 has no direction: its similarities are 0 and it gets no gradient.

    Args:
        pool: number of nodes along each axis, of which a volume has three; None for each pixel.
        pool_mode: ``"max"`` or ``"average"`` over the pixels of a node.
        detach_norm: whether the gradient takes the lengths of the features for constants.

    Raises:
        ValueError: when the pooling is not to a whole number above 0, or the mode is none of those named.

    Example:
        >>> import torch
        >>> feature = torch.rand(2, 4, 16, 16)
        >>> float(PairwiseAffinityLoss()(feature, feature))
        0.0

    """

    def __init__(self, pool: int | None = 2, pool_mode: str = "max", detach_norm: bool = True) -> None:
        super().__init__()
        check_pool(pool)
        check_option("pool_mode", pool_mode, ("max", "average"))
        self.pool = pool
        self.pool_mode = pool_mode
        self.detach_norm = detach_norm

    def forward(self, student: torch.Tensor, teacher: torch.Tensor, label: torch.Tensor | None = None) -> torch.Tensor:
        """
        Args:
            student: feature of shape (B, C, H, W) or (B, C, D, H, W).
            teacher: feature of the student's batch size and number of dimensions; channels and spatial size may
                differ. It gets no gradient.
            label: not looked at.

        Returns:
            A scalar in the precision of the features, at least single.

        Raises:
            TypeError: when the features are not tensors.
            ValueError: when shapes do not match, or there are too many nodes.

        """
        student, teacher = as_inputs(student, teacher)
        with autocast_disabled(student):
            student, teacher = pool_nodes(student, teacher, self.pool, student.shape[0], self.pool_mode)
            return F.mse_loss(self._affinity(student), self._affinity(teacher))

    def _affinity(self, feature: torch.Tensor) -> torch.Tensor:
        node = unit_vectors(feature.flatten(start_dim=2), detach_norm=self.detach_norm)  # (B, C, N)
        return node.transpose(1, 2) @ node  # (B, N, N)
