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

import math

import torch
import torch.nn.functional as F

from ._activation import OverlapCheck
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


class DecoupledKDLoss(TemperedLoss):
    """
    Pull the student's certainty of the true class at each pixel, and apart from it how the student ranks the other
    classes, towards the teacher's.

    With p = softmax(logits / temperature) over the classes, t the class of the label at a pixel, b = (p_t, 1 - p_t),
    q = p of the other classes / (1 - p_t), and N pixels in the batch::

        d    = alpha * KL(b_teacher || b_student) + beta * KL(q_teacher || q_student)
        loss = temperature^2 / N * sum over pixels of d

    Zhao et al., "Decoupled Knowledge Distillation", CVPR 2022, arXiv:2203.08679, Eq. 7; each pixel is a sample. In
    :py:class:`KDLoss` the second term is weighted with 1 - p_t of the teacher, and so vanishes where it is certain.

    - Two classes leave one other class, of which q = 1: the second term is 0 whatever beta is, and the loss is alpha
      times ``KDLoss`` whatever the label is. Take it for three classes or more.
    - The released code takes the logarithm of probabilities, which is minus infinity where one of them rounds to 0, and
      hides the true class by subtracting 1000 from its logit. Here both terms come from the logits.
    - Alpha 1, beta 8 and temperature 4 are the released defaults, chosen on classification; the released code lets
      the weight grow over the first 20 epochs, as ``LinearSchedule`` does.
    - One-channel logits z mean a foreground probability sigmoid(z / temperature), as the softmax over (0, z) has it.
    - A pixel counts with the class that has the largest share of a one-hot label, and not at all where it has none.
    - The mean over pixels drowns a small structure. ``balance="class"`` averages over the pixels of each class first,
      then over the classes present in the batch. It is not in the paper.

    Args:
        alpha: weight of the true class's term, at least 0.
        beta: weight of the other classes' term, at least 0.
        temperature: softening of both logits, above 0. A plain attribute: a schedule may set it while training.
        balance: ``"none"`` for the mean over pixels, ``"class"`` for the mean over pixels of a class, then classes.

    Raises:
        ValueError: when a weight is below 0 or the temperature not above, or the option is none of those named.

    Example:
        >>> import torch
        >>> logits, label = torch.rand(2, 3, 8, 8), torch.randint(0, 3, (2, 1, 8, 8))
        >>> float(DecoupledKDLoss()(logits, logits, label))
        0.0

    """

    def __init__(self, alpha: float = 1.0, beta: float = 8.0, temperature: float = 4.0, balance: str = "none") -> None:
        super().__init__(temperature)
        for name, weight in {"alpha": alpha, "beta": beta}.items():
            if not 0 <= weight < math.inf:
                raise ValueError(f"`{name}` must be a finite number of at least 0, but got {weight}.")
        check_option("balance", balance, ("none", "class"))
        self.alpha = alpha
        self.beta = beta
        self.balance = balance
        self._check_overlap = OverlapCheck('take `KDLoss(activation="sigmoid")`, as there is no one true class')

    def forward(self, student: torch.Tensor, teacher: torch.Tensor, label: torch.Tensor | None = None) -> torch.Tensor:
        """
        Args:
            student: logits of shape (B, C, H, W) or (B, C, D, H, W).
            teacher: logits of the student's shape; they get no gradient.
            label: class indices (B, 1, *spatial) or one-hot (B, C, *spatial), C being 2 for one-channel logits; needed.

        Returns:
            A scalar in the precision of the logits, at least single.

        Raises:
            TypeError: when the logits are not tensors.
            ValueError: when shapes do not match, the label is missing or not of these classes, or its classes overlap.

        """
        student, teacher = as_inputs(student, teacher)
        check_same_prediction(student, teacher)
        self._check_overlap(label, student)
        with autocast_disabled(student):
            mask = one_hot_label(label, student, max(2, student.shape[1]), "`DecoupledKDLoss`")
            check_label_size(mask, student)
            true_class = torch.zeros_like(mask, dtype=torch.bool).scatter(1, mask.argmax(dim=1, keepdim=True), True)
            target, others = self._decouple(student, true_class)
            target_teacher, others_teacher = self._decouple(teacher, true_class)
            divergence = self.alpha * _kl(target_teacher, target) + self.beta * _kl(others_teacher, others)
            # a mask of one class, the annotated pixels, gives their plain mean
            group = mask if self.balance == "class" else mask.sum(dim=1, keepdim=True)
            return self.temperature**2 * class_balanced_mean(divergence, group)

    def _decouple(self, logits: torch.Tensor, true_class: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return log b, (B, 2, *spatial), and log q with 0 at the true class, (B, C, *spatial)."""
        logits = two_channels(logits) / self.temperature
        others = logits.masked_fill(true_class, -math.inf)
        odds = logits.where(true_class, 0.0).sum(dim=1, keepdim=True) - others.logsumexp(dim=1, keepdim=True)
        target = torch.cat([F.logsigmoid(odds), F.logsigmoid(-odds)], dim=1)
        return target, F.log_softmax(others, dim=1).masked_fill(true_class, 0.0)


def _kl(log_teacher: torch.Tensor, log_student: torch.Tensor) -> torch.Tensor:
    return F.kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(dim=1)
