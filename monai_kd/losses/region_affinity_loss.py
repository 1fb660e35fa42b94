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

from ._inputs import as_inputs, autocast_disabled, check_num_classes, check_option, one_hot_label, resize
from ._nodes import class_centres, unit_vectors


class RegionAffinityLoss(nn.Module):
    """
    Pull the similarity between the mean features of two classes in the student towards that in the teacher.

    With m_i the mask of class i, resized to the feature e, and P the pairs i < j of classes that an image has::

        R_i  = sum over pixels of e * m_i / sum of m_i
        V    = 1 / |P| * sum over P of cos(R_i, R_j)
        loss = mean over images of (V_student - V_teacher)^2

    Region affinity distillation of EMKD, Qin et al., "Efficient Medical Image Segmentation Based on Knowledge
    Distillation", IEEE TMI 2021, Eq. 6 to 8.

    - All pairs of classes, as in Eq. 7; the released code knows the classes 0 and 1, and the pair is the same.
    - The squared difference is the released one; Eq. 8 is ``norm=1`` or ``norm=2``, alike while V is a number.
      ``vector=True`` is the text below Eq. 7: V keeps a value for each pair, and the norm runs over the pairs, so that
      opposite errors of two pairs do not cancel.
    - Masks are resized by area to each feature's own size: a cell counts for a class by the share that the class has
      of it. The released code takes the nearest pixel, which loses most lesions smaller than a cell (``"nearest"``).
    - The released code adds 1 to the pixel count of class 1. That scales R_1 and leaves each cosine as it is, so it is
      not offered here.
    - A pair is left out of an image where one of its classes is empty at either size; the released code gives NaN
      without background. An image without any pair counts as zero in the mean, as a missing class 1 does in the
      released code: each image has the same weight, whichever batch it comes in.

    A mean feature shorter than 1e-8 has no direction: its cosines are 0 and it gets no gradient.

    Args:
        norm: ``"squared"`` for the squared difference, 1 or 2 for its L1 or L2 norm.
        vector: whether to compare the similarities pair by pair instead of their mean.
        mask_resize: ``"area"`` or ``"nearest"``.
        num_classes: number of classes, the background included, of a label of indices; None reads it off the label,
            which waits for the device at each step.

    Raises:
        ValueError: when the class count is below 2, or an option is none of those named.

    Example:
        >>> import torch
        >>> feature, label = torch.rand(2, 4, 8, 8), torch.randint(0, 3, (2, 1, 32, 32))
        >>> float(RegionAffinityLoss()(feature, feature, label))
        0.0

    """

    def __init__(
        self,
        norm: int | str = "squared",
        vector: bool = False,
        mask_resize: str = "area",
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        check_option("norm", norm, (1, 2, "squared"))
        check_option("mask_resize", mask_resize, ("area", "nearest"))
        check_num_classes(num_classes)
        self.norm = norm
        self.vector = vector
        self.mask_resize = mask_resize
        self.num_classes = num_classes

    def forward(self, student: torch.Tensor, teacher: torch.Tensor, label: torch.Tensor | None = None) -> torch.Tensor:
        """
        Args:
            student: feature of shape (B, C, H, W) or (B, C, D, H, W).
            teacher: feature of the student's batch size and number of dimensions; channels and spatial size may
                differ. It gets no gradient.
            label: class indices (B, 1, *spatial) or one-hot (B, classes, *spatial) of any spatial size; needed.

        Returns:
            A scalar in the precision of the features, at least single.

        Raises:
            TypeError: when the features are not tensors.
            ValueError: when shapes do not match, or the label is missing or not of these classes.

        """
        student, teacher = as_inputs(student, teacher)
        with autocast_disabled(student):
            mask = one_hot_label(label, student, self.num_classes, "`RegionAffinityLoss`")
            mask_student = resize(mask, student.shape[2:], self.mask_resize)  # each map by a mask of its own size
            same_size = student.shape[2:] == teacher.shape[2:]
            mask_teacher = mask_student if same_size else resize(mask, teacher.shape[2:], self.mask_resize)
            affinity_student, in_student = self._affinity(student, mask_student)  # (B, pairs)
            affinity_teacher, in_teacher = self._affinity(teacher, mask_teacher)
            present = in_student & in_teacher
            difference = (affinity_student - affinity_teacher) * present
            if not self.vector:
                difference = difference.sum(dim=1, keepdim=True) / present.sum(dim=1, keepdim=True).clamp(min=1)
            if self.norm == "squared":
                return difference.square().sum(dim=1).mean()
            return torch.linalg.vector_norm(difference, ord=self.norm, dim=1).mean()

    def _affinity(self, feature: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the cosine of each pair of classes and whether both are there, each (B, pairs)."""
        mask = mask.flatten(start_dim=2)  # (B, K, voxels)
        direction = unit_vectors(class_centres(feature.flatten(start_dim=2), mask), dim=2)  # (B, K, C)
        first, second = torch.triu_indices(mask.shape[1], mask.shape[1], offset=1, device=mask.device)
        cosine = (direction[:, first] * direction[:, second]).sum(dim=2)
        present = mask.sum(dim=2) > 0
        return cosine, present[:, first] & present[:, second]
