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
from ._inputs import as_inputs, autocast_disabled, check_option, resize, unit_norm


class AttentionTransferLoss(nn.Module):
    """
    Pull the map of where the student's feature is active towards the teacher's, whatever their channels.

    With e a feature, M its attention map, flattened over the N pixels of an image::

        M(e) = mean over channels of |e|^exponent
        d    = M(student) / ||M(student)||_2 - M(teacher) / ||M(teacher)||_2
        loss = mean over images of ||d||_2^2 / N

    Activation-based attention transfer of Zagoruyko and Komodakis, "Paying More Attention to Attention", ICLR 2017,
    arXiv:1612.03928, Eq. 2. A ``DistillationTerm`` of several layers is the sum over the pairs.

    - The default is the released code, the mean of the squared differences over images and pixels. The paper has the
      norm itself, ``norm="l2"``: the mean over images of ||d||_2. Mean or sum over channels is the same after the
      normalisation.
    - The released mean divides by N a sum that does not grow with N. So its value falls as 1 / N, and a weight (1000 in
      the released codes, 10000 in a code of segmentation) holds for one size of feature only. Neither ``norm="l2"``
      nor ``ImportanceMapLoss(exponent=2)`` has that: the latter is N times the default.
    - Features of different size are compared as in the paper, which interpolates the attention maps: the student's map
      is brought to the teacher's size, averaged over cells along the axes on which it is larger, interpolated (bilinear
      or trilinear, corners not aligned) along the others. Channels need no adapter.
    - ``ImportanceMapLoss(exponent=2, balance="class")`` is the form in which each class of the label counts alike.

    A map that is zero everywhere stays zero and gets no gradient.

    Args:
        exponent: power p of the absolute feature, at least 1 (below, the gradient at 0 would be infinite).
        norm: ``"mean_square"`` or ``"l2"``, of the difference of the normalised maps.

    Raises:
        ValueError: when the exponent is below 1, or the norm is none of those named.

    Example:
        >>> import torch
        >>> loss = AttentionTransferLoss()
        >>> float(loss(torch.ones(2, 4, 8, 8), torch.ones(2, 16, 8, 8)))
        0.0

    """

    def __init__(self, exponent: float = 2, norm: str = "mean_square") -> None:
        super().__init__()
        check_exponent(exponent)
        check_option("norm", norm, ("mean_square", "l2"))
        self.exponent = exponent
        self.norm = norm

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
            ValueError: when the batch sizes or the numbers of dimensions differ.

        """
        student, teacher = as_inputs(student, teacher)
        size = teacher.shape[2:]
        with autocast_disabled(student):
            attention = importance_map(student, self.exponent)  # (B, 1, *spatial)
            attention = resize(attention, tuple(map(min, student.shape[2:], size)), "area")
            attention = resize(attention, size, "linear")
            target = importance_map(teacher, self.exponent)
            difference = unit_norm(attention.flatten(start_dim=1)) - unit_norm(target.flatten(start_dim=1))
            if self.norm == "l2":
                return torch.linalg.vector_norm(difference, dim=1).mean()
            return difference.square().mean()
