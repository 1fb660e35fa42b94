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


class SymmetricalGuidingLoss(TemperedLoss):
    """
    Pull the student's attended logits, made symmetric, towards the teacher's.

    With A the logits of a square image after self-attention over its rows, as in ``AttentionSupervisionLoss``, for the
    student and for the teacher::

        S    = sigmoid((A + A^T) / temperature)
        loss = temperature^2 * mean over pixels and images of KL(S_teacher || S_student)

    where the KL is that of two Bernoulli variables. Symmetrical guiding module of KDAS, Trinh et al., "KDAS: Knowledge
    Distillation via Attention Supervision Framework for Polyp Segmentation", arXiv:2312.08555, Eq. 4 to 6, which apply
    it to the second scale alone.

    - The paper names sigma only by its letter. ``"sigmoid_bernoulli"`` is the above; ``"softmax"`` makes
      (A + A^T) / temperature a distribution over the pixels of an image; ``"sigmoid_softmax"`` takes the sigmoid of
      A + A^T first. On one pair of maps the three differed by a factor of 80: a weight belongs to its reading.
    - Eq. 6 prints the student first, Eq. 3 the teacher. The teacher's map is the target in both here;
      ``direction="reverse"`` is Eq. 6 as printed.
    - The released code has the mean square of the difference of z + z^T instead, on the first scale, without attention,
      sigma or temperature.
    - Logits of C channels are C maps, each attended by itself, and the loss is their mean. In a volume the rows of all
      slices are attended, and each slice is made symmetric.

    Args:
        temperature: softening of both maps, above 0. A plain attribute: a schedule may set it while training.
        sigma: ``"sigmoid_bernoulli"``, ``"sigmoid_softmax"`` or ``"softmax"``.
        direction: ``"forward"`` for KL(S_teacher || S_student), ``"reverse"`` for KL(S_student || S_teacher).
        tokens: what is attended, ``"rows"`` or ``"pixels"``; at most 16384 of them.
        pool: number of pixels along an axis that both maps are averaged to before; None for none.

    Raises:
        ValueError: when the temperature is not above 0, the pooling not to a whole number above 0, or an option is
            none of those named.

    Example:
        >>> import torch
        >>> logits = torch.randn(2, 1, 32, 32)
        >>> float(SymmetricalGuidingLoss()(logits, logits))
        0.0

    """

    def __init__(
        self,
        temperature: float = 2.0,
        sigma: str = "sigmoid_bernoulli",
        direction: str = "forward",
        tokens: str = "rows",
        pool: int | None = None,
    ) -> None:
        super().__init__(temperature)
        check_option("sigma", sigma, ("sigmoid_bernoulli", "sigmoid_softmax", "softmax"))
        check_option("direction", direction, ("forward", "reverse"))
        check_attention(tokens, pool)
        self.sigma = sigma
        self.direction = direction
        self.tokens = tokens
        self.pool = pool

    def forward(self, student: torch.Tensor, teacher: torch.Tensor, label: torch.Tensor | None = None) -> torch.Tensor:
        """
        Args:
            student: logits of shape (B, C, H, W) or (B, C, D, H, W), where H = W.
            teacher: logits of the student's shape; they get no gradient.
            label: not looked at.

        Returns:
            A scalar in the precision of the logits, at least single.

        Raises:
            TypeError: when the logits are not tensors.
            ValueError: when shapes do not match, H and W differ, or there are too many tokens.

        """
        student, teacher = as_inputs(student, teacher)
        with autocast_disabled(student):
            student, teacher = attend(student, teacher, self.tokens, self.pool)
            log_student, log_teacher = self._log_probability(student), self._log_probability(teacher)
            if self.direction == "reverse":
                log_student, log_teacher = log_teacher, log_student
            return divergence(log_student, log_teacher, self.temperature)

    def _log_probability(self, attended: torch.Tensor) -> torch.Tensor:
        height, width = attended.shape[-2:]
        if height != width:
            raise ValueError(
                "`student` must be square for the sum of a map and its transpose, "
                f"but got a height of {height} and a width of {width}; crop, pad or resize the images to squares, "
                f"or pass a `pool` of at most {min(height, width)}."
            )
        symmetric = attended + attended.transpose(-1, -2)
        if self.sigma == "sigmoid_bernoulli":
            logit = symmetric / self.temperature
            return torch.stack([F.logsigmoid(logit), F.logsigmoid(-logit)], dim=-1)  # (B, C, *spatial, 2)
        symmetric = symmetric.sigmoid() if self.sigma == "sigmoid_softmax" else symmetric
        return F.log_softmax(symmetric.flatten(2) / self.temperature, dim=-1)  # (B, C, voxels)
