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

from ._activation import ACTIVATIONS, OverlapCheck, bernoulli_divergence, overlapping_masks
from ._channels import two_channels
from ._inputs import (
    as_inputs,
    autocast_disabled,
    check_label_size,
    check_option,
    check_same_prediction,
    class_balanced_mean,
    one_hot_label,
)
from ._tempered_loss import TemperedLoss


class KDLoss(TemperedLoss):
    """
    Pull the student's class probabilities at each pixel towards the teacher's softened ones.

    With p = softmax(logits / temperature) over the classes and N pixels in the batch::

        loss = temperature^2 / N * sum over pixels of KL(p_teacher || p_student)

    Hinton et al., "Distilling the Knowledge in a Neural Network", arXiv:1503.02531, section 2: the square keeps the
    gradient of about the same size at each temperature. It is also the prediction maps distillation of EMKD, Qin et
    al., "Efficient Medical Image Segmentation Based on Knowledge Distillation", IEEE TMI 2021, Eq. 1.

    - EMKD's Eq. 1 has KL(p_student || p_teacher) and no temperature; its released code has the divergence above at
      temperature 4, which is the default. ``KDLoss(temperature=1, direction="reverse")`` is Eq. 1 as printed.
    - For two classes the value is the released one. For C classes the released code divides by C N / 2; here it is N
      for each C, so that one weight means the same for each task.
    - One-channel logits z mean a foreground probability sigmoid(z / temperature): the loss is the KL of two Bernoulli
      variables, computed as the softmax over (0, z). A softmax over the one channel would be constant.
    - Classes that overlap have a sigmoid each: ``activation="sigmoid"`` is the sum over the channels of the KL of two
      Bernoulli variables. With one channel it is the above. It is not in the paper.
    - The mean over pixels drowns a small structure: where an organ has 1% of the pixels, 99% of the loss teaches
      background. ``balance="class"`` averages the divergence over each class of the label first, then over the
      classes present in the batch. It is not in the paper. Of classes that overlap, pixels without any are a class.

    Args:
        temperature: softening of both logits, above 0. A plain attribute: a schedule may set it while training.
        direction: ``"forward"`` for KL(p_teacher || p_student), ``"reverse"`` for KL(p_student || p_teacher).
        balance: ``"none"`` for the mean over pixels, ``"class"`` for the mean over pixels of a class, then classes.
        activation: ``"softmax"`` for classes that exclude each other, ``"sigmoid"`` for those that may overlap.

    Raises:
        ValueError: when the temperature is not above 0, or an option is none of those named.

    Example:
        >>> import torch
        >>> loss = KDLoss(temperature=4.0)
        >>> float(loss(torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 8, 8)))
        0.0

    """

    def __init__(
        self,
        temperature: float = 4.0,
        direction: str = "forward",
        balance: str = "none",
        activation: str = "softmax",
    ) -> None:
        super().__init__(temperature)
        check_option("direction", direction, ("forward", "reverse"))
        check_option("balance", balance, ("none", "class"))
        check_option("activation", activation, ACTIVATIONS)
        self.direction = direction
        self.balance = balance
        self.activation = activation
        self._check_overlap = OverlapCheck('pass `KDLoss(activation="sigmoid")`')

    def forward(self, student: torch.Tensor, teacher: torch.Tensor, label: torch.Tensor | None = None) -> torch.Tensor:
        """
        Args:
            student: logits of shape (B, C, H, W) or (B, C, D, H, W).
            teacher: logits of the student's shape; they get no gradient.
            label: class indices (B, 1, *spatial) or one-hot (B, C, *spatial), C being 2 for one-channel logits; with
                ``activation="sigmoid"`` a mask for each channel of the student. Needed for ``balance="class"``.

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
            divergence = self.temperature**2 * self._divergence(student, teacher)  # (B, *spatial)
            if self.balance == "none":
                return divergence.mean()
            mask = self._mask(label, student)
            check_label_size(mask, student)
            return class_balanced_mean(divergence, mask)

    def _mask(self, label: torch.Tensor | None, student: torch.Tensor) -> torch.Tensor:
        needed_by = 'the `balance="class"` of `KDLoss`'
        if self.activation == "sigmoid":
            return overlapping_masks(label, student, needed_by)
        return one_hot_label(label, student, max(2, student.shape[1]), needed_by)

    def _divergence(self, student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        if self.activation == "sigmoid":
            first, second = teacher / self.temperature, student / self.temperature
            if self.direction == "reverse":
                first, second = second, first
            return bernoulli_divergence(second, first)
        log_student = F.log_softmax(two_channels(student) / self.temperature, dim=1)
        log_teacher = F.log_softmax(two_channels(teacher) / self.temperature, dim=1)
        if self.direction == "reverse":
            log_student, log_teacher = log_teacher, log_student
        return F.kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(dim=1)
