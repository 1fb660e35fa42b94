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
from torch import nn

from .hint_loss import HintLoss


class MimicLoss(nn.Module):
    """
    Pull the student's feature vector at each pixel, projected to the teacher's channels, towards the teacher's.

    With e a feature of C channels and N pixels in the batch::

        loss = 1 / N * sum over pixels of || student - teacher ||_2^2

    It is C times :py:class:`HintLoss` and differs in nothing else: the squares are summed over the channels here and
    averaged there. The projection, a 1x1 convolution, is the same
    :py:class:`~monai_kd.networks.ChannelAdapter`, given to the ``DistillationTerm``.

    This is our reading of the row "MIMIC" in Table III of EMKD, Qin et al., "Efficient Medical Image Segmentation Based
    on Knowledge Distillation", IEEE TMI 2021, which cites Li et al., "Mimicking Very Efficient Network for Object
    Detection", CVPR 2017, and gives neither a formula nor code. Take one pair of layers.

    - Li et al. regress what is pooled from a detector's proposals, since most of an image is background. A segmentation
      network has no proposals: every pixel counts here, and the constant factors are the weight's.
    - Where the background drowns small structures, ``HintLoss(balance="class")`` of C times the weight is the remedy.

    Example:
        >>> import torch
        >>> float(MimicLoss()(torch.full((2, 4, 8, 8), 3.0), torch.ones(2, 4, 8, 8)))
        16.0

    """

    def __init__(self) -> None:
        super().__init__()
        self.hint = HintLoss()

    def forward(self, student: torch.Tensor, teacher: torch.Tensor, label: torch.Tensor | None = None) -> torch.Tensor:
        """
        Args:
            student: feature of shape (B, C, H, W) or (B, C, D, H, W).
            teacher: feature of the student's shape; it gets no gradient.
            label: not looked at.

        Returns:
            A scalar in the precision of the features, at least single.

        Raises:
            TypeError: when the features are not tensors.
            ValueError: when shapes do not match.

        """
        mean = self.hint(student, teacher)
        return student.shape[1] * mean
