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

from ._importance import check_exponent, importance_map
from ._inputs import (
    as_inputs,
    autocast_disabled,
    check_num_classes,
    check_option,
    class_balanced_mean,
    one_hot_label,
    resize,
    unit_norm,
)


class ImportanceMapLoss(nn.Module):
    """
    Pull the map of where the student's feature is strong towards the teacher's, whatever their channels.

    With e a feature, M its importance map, flattened over the pixels of an image, and f a resizing to the teacher's
    spatial size::

        M(e) = mean over channels of |e|^exponent
        loss = mean over images of || M(f(student)) / ||M(f(student))||_2 - M(teacher) / ||M(teacher)||_2 ||^2

    Importance maps distillation of EMKD, Qin et al., "Efficient Medical Image Segmentation Based on Knowledge
    Distillation", IEEE TMI 2021, Eq. 2 to 5; with exponent 2 it is the number of pixels times the attention transfer
    of Zagoruyko and Komodakis, arXiv:1612.03928. Mean or sum over channels is the same after the normalisation.

    - The default is the released code, which most likely made the paper's tables: exponent 4, squared L2 norm of the
      difference, bilinear resizing of the student.
    - The paper's text is ``ImportanceMapLoss(exponent=2, norm="l1", resize="pool")``: Eq. 3, the L1 norm of Eq. 5, and
      Eq. 2 with pooling where the student is larger and interpolation where it is smaller.
    - The L1 norm of Eq. 5 grows with the square root of the number of pixels; the squared L2 norm does not grow.
    - ``balance="class"`` takes the mean of the differences over the pixels of each class, then over the classes
      present in the batch, times the number of pixels: equal to the above where all classes are of one size. The
      label is resized by area, so that a small lesion keeps its share of a cell. It is not in the paper.

    A map that is zero everywhere stays zero and gets no gradient.

    Args:
        exponent: power of the absolute feature, at least 1 (below, the gradient at 0 would be infinite).
        norm: ``"squared_l2"`` or ``"l1"``, of the difference of the normalised maps.
        resize: ``"interpolate"`` for bilinear or trilinear resizing both ways, ``"pool"`` for average pooling along
            the axes on which the student is larger, and interpolation along the others.
        balance: ``"none"`` for all pixels alike, ``"class"`` for the classes of the label alike.
        num_classes: number of classes, the background included, of a label of indices; None reads it off the label,
            which waits for the device at each step.

    Raises:
        ValueError: when the exponent is below 1, the class count below 2, or an option is none of those named.

    Example:
        >>> import torch
        >>> loss = ImportanceMapLoss()
        >>> float(loss(torch.ones(2, 4, 8, 8), torch.ones(2, 16, 8, 8)))
        0.0

    """

    def __init__(
        self,
        exponent: float = 4,
        norm: str = "squared_l2",
        resize: str = "interpolate",
        balance: str = "none",
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        check_exponent(exponent)
        check_option("norm", norm, ("squared_l2", "l1"))
        check_option("resize", resize, ("interpolate", "pool"))
        check_option("balance", balance, ("none", "class"))
        check_num_classes(num_classes)
        self.exponent = exponent
        self.norm = norm
        self.resize = resize
        self.balance = balance
        self.num_classes = num_classes

    def forward(self, student: torch.Tensor, teacher: torch.Tensor, label: torch.Tensor | None = None) -> torch.Tensor:
        """
        Args:
            student: feature of shape (B, C, H, W) or (B, C, D, H, W).
            teacher: feature of the student's batch size and number of dimensions; channels and spatial size may
                differ. It gets no gradient.
            label: class indices (B, 1, *spatial) or one-hot (B, classes, *spatial) of any spatial size; needed for
                ``balance="class"``, else not looked at.

        Returns:
            A scalar in the precision of the features, at least single.

        Raises:
            TypeError: when the features are not tensors.
            ValueError: when shapes do not match, or the label is missing or not of these classes.

        """
        student, teacher = as_inputs(student, teacher)
        size = teacher.shape[2:]
        with autocast_disabled(student):
            if self.resize == "pool":
                student = resize(student, tuple(map(min, student.shape[2:], size)), "area")
            difference = self._importance(resize(student, size, "linear")) - self._importance(teacher)  # (B, voxels)
            difference = difference.abs() if self.norm == "l1" else difference.square()
            if self.balance == "none":
                return difference.sum(dim=1).mean()
            mask = one_hot_label(label, student, self.num_classes, 'the `balance="class"` of `ImportanceMapLoss`')
            mask = resize(mask, size, "area").flatten(start_dim=2)  # (B, classes, voxels)
            return mask.shape[2] * class_balanced_mean(difference, mask)

    def _importance(self, feature: torch.Tensor) -> torch.Tensor:
        return unit_norm(importance_map(feature, self.exponent).flatten(start_dim=1))
