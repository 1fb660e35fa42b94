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

from ._inputs import as_inputs, autocast_disabled, check_same_shape
from ._tempered_loss import TemperedLoss


class ChannelWiseLoss(TemperedLoss):
    """
    Pull where each of the student's channels is high within an image towards where the teacher's is.

    With p = softmax(map / temperature) over the pixels of an image, for each channel by itself::

        loss = temperature^2 * mean over images and channels of KL(p_teacher || p_student)

    Shu et al., "Channel-wise Knowledge Distillation for Dense Prediction", ICCV 2021, arXiv:2011.13256, section 3.

    - It takes logits, where each class counts alike, however small its structures are, or features; a feature of other
      channels needs a :py:class:`~monai_kd.networks.ChannelAdapter`. The temperature that the released code names for
      logits, 4, is the default, there with a weight of 3; for features another code takes a weight of 50.
    - The released code takes the logarithm of the softmax, which is minus infinity on confident maps, and the loss NaN.
      The value here is the same where that is finite.
    - One-channel logits (a foreground probability by sigmoid) are as well defined as others: the softmax runs over the
      pixels, not over the one channel, where it would be constant.
    - A number added to all pixels of a channel changes nothing: it teaches where a channel is higher, and not how high
      it is. How much foreground there is comes from the supervised loss.

    Args:
        temperature: softening of both maps, above 0. A plain attribute: a schedule may set it while training.

    Raises:
        ValueError: when the temperature is not above 0.

    Example:
        >>> import torch
        >>> logits = torch.rand(2, 3, 8, 8)
        >>> float(ChannelWiseLoss()(logits, logits))
        0.0

    """

    def __init__(self, temperature: float = 4.0) -> None:
        super().__init__(temperature)

    def forward(self, student: torch.Tensor, teacher: torch.Tensor, label: torch.Tensor | None = None) -> torch.Tensor:
        """
        Args:
            student: logits or feature of shape (B, C, H, W) or (B, C, D, H, W).
            teacher: map of the student's shape; it gets no gradient.
            label: not looked at.

        Returns:
            A scalar in the precision of the maps, at least single.

        Raises:
            TypeError: when the maps are not tensors.
            ValueError: when shapes do not match.

        """
        student, teacher = as_inputs(student, teacher)
        check_same_shape(student, teacher)
        with autocast_disabled(student):
            log_student, log_teacher = (
                F.log_softmax(x.flatten(start_dim=2) / self.temperature, dim=2) for x in (student, teacher)
            )  # (B, C, voxels)
            divergence = F.kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(dim=2)
            return self.temperature**2 * divergence.mean()
