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

import itertools
import math

import torch
import torch.nn.functional as F
from torch import nn

from ._activation import ACTIVATIONS, OverlapCheck, overlapping_masks
from ._channels import two_channels
from ._inputs import (
    as_inputs,
    autocast_disabled,
    check_option,
    check_same_prediction,
    class_balanced_mean,
    one_hot_label,
    resize,
)


class LocalAffinityLoss(nn.Module):
    """
    Pull the student's probabilities, and how far they change from a pixel to its neighbours, towards the teacher's.

    With y = softmax of the logits over the classes, n(p) the 8 neighbours of pixel p (26 in a volume), and N the
    pixels of the batch::

        c(p)        = mean over q in n(p) of ||y(p) - y(q)||_2
        zero order  = 1 / N * sum over p of ||y_student(p) - y_teacher(p)||_2^2
        first order = 1 / N * sum over p of (c_student(p) - c_teacher(p))^2
        loss        = zero order + first order

    A reading of Xie et al., "Improving Fast Segmentation With Teacher-student Learning", BMVC 2018 (arXiv:1810.08476),
    which the EMKD paper compares with as LOCAL. There is no released code that we know of, and the formulas above were
    not compared with the paper's: that knowledge of order zero and one is passed on is the paper's, the norms and
    equal weights are ours.

    - Two terms, of ``order="zero"`` and ``order="first"``, let the two parts have weights of their own.
    - A pixel at the border has fewer neighbours, and c is the mean over those: nothing is padded.
    - One-channel logits z mean the two probabilities of a Bernoulli variable, 1 - sigmoid(z) and sigmoid(z).
    - Classes that overlap have a sigmoid each: ``activation="sigmoid"`` takes those two probabilities of each channel.
    - Where all neighbours have one probability, the first order has no slope and gives no gradient.
    - The mean over pixels drowns a small structure. ``balance="class"`` takes the mean over each class of the batch
      first, then over the classes present; the label is resized by area. It is not in the paper. Of classes that
      overlap, pixels without any are a class.

    Args:
        order: ``"both"``, ``"zero"`` or ``"first"``.
        balance: ``"none"`` for the mean over pixels, ``"class"`` for the mean over pixels of a class, then classes.
        activation: ``"softmax"`` for classes that exclude each other, ``"sigmoid"`` for those that may overlap.

    Raises:
        ValueError: when an option is none of those named.

    Example:
        >>> import torch
        >>> logits = torch.randn(2, 3, 8, 8)
        >>> float(LocalAffinityLoss()(logits, logits))
        0.0

    """

    def __init__(self, order: str = "both", balance: str = "none", activation: str = "softmax") -> None:
        super().__init__()
        check_option("order", order, ("both", "zero", "first"))
        check_option("balance", balance, ("none", "class"))
        check_option("activation", activation, ACTIVATIONS)
        self.order = order
        self.balance = balance
        self.activation = activation
        self._check_overlap = OverlapCheck('pass `LocalAffinityLoss(activation="sigmoid")`')

    def forward(self, student: torch.Tensor, teacher: torch.Tensor, label: torch.Tensor | None = None) -> torch.Tensor:
        """
        Args:
            student: logits of shape (B, C, H, W) or (B, C, D, H, W).
            teacher: logits of the student's shape; they get no gradient.
            label: class indices (B, 1, *spatial) or one-hot (B, C, *spatial), C being 2 for one-channel logits, of any
                spatial size; with ``activation="sigmoid"`` a mask for each channel of the student. Needed for
                ``balance="class"``.

        Returns:
            A scalar in the precision of the logits, at least single.

        Raises:
            TypeError: when the logits are not tensors.
            ValueError: when shapes do not match, the label is missing or not of these classes, or its classes overlap
                under a softmax.

        """
        student, teacher = as_inputs(student, teacher)
        check_same_prediction(student, teacher)
        if self.activation == "softmax":
            self._check_overlap(label, student)
        with autocast_disabled(student):
            difference = self._difference(self._probability(student), self._probability(teacher))  # (B, *spatial)
            if self.balance == "none":
                return difference.mean()
            mask = self._mask(label, student)
            return class_balanced_mean(difference, resize(mask, student.shape[2:], "area"))

    def _mask(self, label: torch.Tensor | None, student: torch.Tensor) -> torch.Tensor:
        needed_by = 'the `balance="class"` of `LocalAffinityLoss`'
        if self.activation == "sigmoid":
            return overlapping_masks(label, student, needed_by)
        return one_hot_label(label, student, max(2, student.shape[1]), needed_by)

    def _probability(self, logits: torch.Tensor) -> torch.Tensor:
        if self.activation == "sigmoid":  # p and 1 - p differ by as much: the root of 2 in each distance
            return math.sqrt(2) * logits.sigmoid()
        return F.softmax(two_channels(logits), dim=1)

    def _difference(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        zero = (student - teacher).square().sum(dim=1)
        if self.order == "zero":
            return zero
        first = (self._change(student) - self._change(teacher)).square()
        return first if self.order == "first" else zero + first

    @staticmethod
    def _change(probability: torch.Tensor) -> torch.Tensor:
        """Return c of each pixel, (B, *spatial)."""
        size = probability.shape[2:]
        total = torch.zeros_like(probability[:, 0])
        neighbours = torch.zeros(size, dtype=total.dtype, device=total.device)
        for step in itertools.product((-1, 0, 1), repeat=len(size)):
            # a step and its opposite join the same pairs of pixels; an axis of one pixel has no pair
            if step <= (0,) * len(size) or any(abs(by) >= n for by, n in zip(step, size)):
                continue
            here = (...,) + tuple(slice(max(0, -by), n - max(0, by)) for by, n in zip(step, size))
            there = (...,) + tuple(slice(max(0, by), n - max(0, -by)) for by, n in zip(step, size))
            distance = torch.linalg.vector_norm(probability[here] - probability[there], dim=1)
            for side in (here, there):
                total[side] += distance
                neighbours[side] += 1
        return total / neighbours.clamp(min=1)
