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

import warnings

import torch
from torch import nn

from ._inputs import as_inputs, autocast_disabled, unit_norm


class SimilarityPreservingLoss(nn.Module):
    """
    Pull the similarities between the images of a batch in the student towards those in the teacher.

    With Q the features of a batch, a row for each of its B images, and G the similarities, row by row::

        A    = Q Q^T
        G_i  = A_i / ||A_i||_2
        loss = 1 / B^2 * sum over i and j of (G_student - G_teacher)_ij^2

    Tung and Mori, "Similarity-Preserving Knowledge Distillation", ICCV 2019, arXiv:1907.09682, section 3. Channels and
    spatial size of the features may differ, and no adapter is needed. Two codes of others agree with the paper and
    take the last feature at a weight of 3000; a third divides the rows by their L1 norm, which is another loss.

    - Images are compared, not pixels: what it asks for is that the student finds those images alike that the teacher
      does. The value falls as 1 / B for batches alike, so that a weight holds for one batch size.
    - A batch of one image has no other to resemble: the value is 0 and nothing is learnt, of which a warning tells. It
      is no error, since the last batch of an epoch may be that short, and on several GPUs that of one rank alone.
    - On several GPUs each rank compares the images of its own batch: B is the batch size of a GPU. Similarities between
      ranks would need features that are gathered with their gradient.

    An image whose feature is zero everywhere resembles none and gets no gradient.

    Example:
        >>> import torch
        >>> student, teacher = torch.rand(4, 8, 16, 16), torch.rand(4, 32, 8, 8)
        >>> loss = SimilarityPreservingLoss()
        >>> bool(loss(student, teacher) > loss(teacher, teacher))
        True

    """

    def forward(self, student: torch.Tensor, teacher: torch.Tensor, label: torch.Tensor | None = None) -> torch.Tensor:
        """
        Args:
            student: feature of shape (B, C, H, W) or (B, C, D, H, W), of at least two images.
            teacher: feature of the student's batch size and number of dimensions; channels and spatial size may
                differ. It gets no gradient.
            label: not looked at.

        Returns:
            A scalar in the precision of the features, at least single.

        Raises:
            TypeError: when the features are not tensors.
            ValueError: when the batch sizes or the numbers of dimensions differ.

        """
        student, teacher = as_inputs(student, teacher)
        if student.shape[0] == 1 and not torch.compiler.is_compiling():
            warnings.warn(
                "`SimilarityPreservingLoss` needs at least 2 images in a batch, but got 1, which teaches nothing; "
                "raise the batch size, or the samples that are cropped of each image.",
                stacklevel=2,
            )
        with autocast_disabled(student):
            return (self._similarity(student) - self._similarity(teacher)).square().mean()

    def _similarity(self, feature: torch.Tensor) -> torch.Tensor:
        rows = feature.flatten(start_dim=1)  # (B, C * voxels)
        return unit_norm(rows @ rows.T)  # (B, B)
