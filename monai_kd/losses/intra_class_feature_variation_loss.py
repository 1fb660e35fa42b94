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

from ._inputs import (
    as_inputs,
    autocast_disabled,
    check_num_classes,
    check_option,
    class_balanced_mean,
    one_hot_label,
    resize,
)
from ._nodes import class_centres, unit_vectors


class IntraClassFeatureVariationLoss(nn.Module):
    """
    Pull the similarity of each pixel to the mean feature of its class in the student towards that in the teacher.

    With m_c the mask of class c at the size of the feature f, and N the pixels of the batch::

        R_c    = sum over the pixels of an image of f * m_c / sum of m_c
        V_c(p) = cos(f(p), R_c)
        loss   = 1 / N * sum over pixels and classes of m_c(p) * (V_c(p) of the student - V_c(p) of the teacher)^2

    Wang et al., "Intra-class Feature Variation Distillation for Semantic Segmentation", ECCV 2020. The mean features
    are those of each image, and the gradient runs through them too, as in the released code.

    - Masks are resized by area: a cell is compared with each class in it, by the share that the class has of it. The
      released code takes the nearest pixel, which loses most lesions smaller than a cell (``mask_resize="nearest"``).
    - A pixel without a class adds 0 but counts in N, as in the released code; only a one-hot label can have it.
    - A class that an image lacks adds nothing there. One of a single pixel is its own mean: its V is 1 in both.
    - A student of another spatial size is interpolated linearly to the teacher's; the released code has equal sizes.
    - The mean over pixels drowns a small structure. ``balance="class"`` takes the mean over each class of the batch
      first, then over the classes present. It is not in the paper.

    A feature or mean feature shorter than 1e-8 has no direction: its cosines are 0 and it gets no gradient.

    Args:
        mask_resize: ``"area"`` or ``"nearest"``.
        balance: ``"none"`` for the mean over pixels, ``"class"`` for the mean over pixels of a class, then classes.
        num_classes: number of classes, the background included, of a label of indices; None reads it off the label,
            which waits for the device at each step.

    Raises:
        ValueError: when the class count is below 2, or an option is none of those named.

    Example:
        >>> import torch
        >>> feature, label = torch.rand(2, 4, 8, 8), torch.randint(0, 3, (2, 1, 32, 32))
        >>> float(IntraClassFeatureVariationLoss()(feature, feature, label))
        0.0

    """

    def __init__(self, mask_resize: str = "area", balance: str = "none", num_classes: int | None = None) -> None:
        super().__init__()
        check_option("mask_resize", mask_resize, ("area", "nearest"))
        check_option("balance", balance, ("none", "class"))
        check_num_classes(num_classes)
        self.mask_resize = mask_resize
        self.balance = balance
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
        size = teacher.shape[2:]
        with autocast_disabled(student):
            student = resize(student, size, "linear")
            mask = one_hot_label(label, student, self.num_classes, "`IntraClassFeatureVariationLoss`")
            mask = resize(mask, size, self.mask_resize).flatten(start_dim=2)  # (B, K, voxels)
            difference = self._similarity(student, mask) - self._similarity(teacher, mask)
            if self.balance == "none":
                return (difference.square() * mask).sum(dim=1).mean()
            return class_balanced_mean(difference.square(), mask)

    @staticmethod
    def _similarity(feature: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Return the cosine of each pixel and the mean of each class of its image, (B, K, voxels)."""
        feature = feature.flatten(start_dim=2)  # (B, C, voxels)
        return unit_vectors(class_centres(feature, mask), dim=2) @ unit_vectors(feature, dim=1)
