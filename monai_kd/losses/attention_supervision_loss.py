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

from ._attention import attend, check_attention, divergence
from ._inputs import as_inputs, autocast_disabled, check_option
from ._tempered_loss import TemperedLoss


class AttentionSupervisionLoss(TemperedLoss):
    """
    Pull the student's logits, after self-attention over the rows of the image, towards the teacher's.

    With z the logits of an image as a matrix of H rows and W columns, for the student and for the teacher::

        A    = softmax(z z^T / sqrt(W)) z
        p    = softmax(A / temperature) over the pixels of the image
        loss = temperature^2 * mean over images of KL(p_teacher || p_student)

    Attention supervision of KDAS, Trinh et al., "KDAS: Knowledge Distillation via Attention Supervision Framework for
    Polyp Segmentation", arXiv:2312.08555, Eq. 1 to 3. One call is one scale; a ``DistillationTerm`` of several layers
    or outputs is the sum over the scales in Eq. 3.

    - The released code attends the teacher alone, and takes the softmax of the student over its only channel: a
      constant, so that the term has no gradient. It also divides by the temperature after the softmax, which leaves
      a target that is no distribution and may be negative. Here both are attended, as in Eq. 1 and 2.
    - The paper leaves open what a token is and what the KL runs over. Rows as tokens are what the released code makes
      of a one-channel map; the KL over all pixels is our reading, ``norm="row"`` the one with a distribution for each
      row, averaged over the rows. ``tokens="pixels"`` attends each pixel to each other, at a cost of (H W)^2.
    - A distribution over the pixels puts its mass on a small structure, where a mean over pixels gives it a small
      share. At the weights of Eq. 8, 0.2 to 0.8 of BCE + Dice, the gradient at polyp-like logits of 352 x 352 was 1.4
      times the supervised one at the start and 16 to 20 times later, with ``norm="row"`` 0.4 and 3.5 to 4.3 times.
      Watch the ratio that ``DistillationHandler`` logs.
    - Rows and columns of both maps may be reordered together without any change: which rows are neighbours is not seen.
    - Logits of C channels are C maps, each attended by itself, and the loss is their mean. Of two classes, the
      difference of both logits is the one map to pass.
    - In a volume the rows of all slices are the tokens.

    Args:
        temperature: softening of both attention outputs, above 0. A plain attribute: a schedule may set it.
        tokens: ``"rows"`` or ``"pixels"``; at most 16384 of them.
        norm: ``"flat"`` for one distribution over the pixels of an image, ``"row"`` for one in each row.
        pool: number of pixels along an axis that both maps are averaged to before; None for none.

    Raises:
        ValueError: when the temperature is not above 0, the pooling not to a whole number above 0, or an option is
            none of those named.

    Example:
        >>> import torch
        >>> logits = torch.randn(2, 1, 32, 32)
        >>> float(AttentionSupervisionLoss()(logits, logits))
        0.0

    """

    def __init__(
        self, temperature: float = 2.0, tokens: str = "rows", norm: str = "flat", pool: int | None = None
    ) -> None:
        super().__init__(temperature)
        check_attention(tokens, pool)
        check_option("norm", norm, ("flat", "row"))
        self.tokens = tokens
        self.norm = norm
        self.pool = pool

    def forward(self, student: torch.Tensor, teacher: torch.Tensor, label: torch.Tensor | None = None) -> torch.Tensor:
        """
        Args:
            student: logits of shape (B, C, H, W) or (B, C, D, H, W).
            teacher: logits of the student's shape; they get no gradient.
            label: not looked at.

        Returns:
            A scalar in the precision of the logits, at least single.

        Raises:
            TypeError: when the logits are not tensors.
            ValueError: when shapes do not match, or there are too many tokens.

        """
        student, teacher = as_inputs(student, teacher)
        with autocast_disabled(student):
            student, teacher = attend(student, teacher, self.tokens, self.pool)
            return divergence(self._log_probability(student), self._log_probability(teacher), self.temperature)

    def _log_probability(self, attended: torch.Tensor) -> torch.Tensor:
        attended = attended.flatten(2) if self.norm == "flat" else attended
        return F.log_softmax(attended / self.temperature, dim=-1)
