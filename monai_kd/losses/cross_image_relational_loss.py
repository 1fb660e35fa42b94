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

from ._inputs import (
    as_inputs,
    autocast_disabled,
    check_num_classes,
    check_option,
    class_balanced_mean,
    one_hot_label,
    resize,
)
from ._nodes import check_pool, pool_nodes, unit_vectors
from ._tempered_loss import TemperedLoss


class CrossImageRelationalLoss(TemperedLoss):
    """
    Pull the similarity of each pixel to the pixels of all images of the batch towards that in the teacher.

    With f_ip the feature of pixel p in image i, divided by its length, B images and N pixels in each::

        s_ijpq = f_ip . f_jq / temperature
        P_ijp  = softmax of s_ijpq over the pixels q of image j
        loss   = 1 / (B^2 N) * sum over i, j and p of KL(P_ijp of the teacher || P_ijp of the student)

    Mini-batch pixel-to-pixel distillation of CIRKD, Yang et al., "Cross-Image Relational Knowledge Distillation for
    Semantic Segmentation", CVPR 2022 (arXiv:2204.06986). An image is paired with itself too, and the value is not
    multiplied with the squared temperature, as in the released code.

    - CIRKD's memory, the contrast with pixels and regions of earlier batches, is left out. It needs queues that a
      checkpoint saves and all ranks share, and a projection that an optimizer trains; a loss has neither here. The
      released queues of a class also take in pixels of other classes.
    - The matrix of similarities has (B N)^2 values. 2^28 of them, 1 GiB for each network, are allowed: 2048 pixels in
      each of 8 images. ``pool`` averages both maps to fewer. The released code pools by 4 from 256 x 256 on.
    - Each axis has at most the pixels of the smaller of both maps, so that student and teacher may differ in size.
    - In distributed training the images are those of one rank, as in the released code.
    - The mean over pixels drowns a small structure. ``balance="class"`` takes the mean over the pixels p of each class
      of the batch first, then over the classes present; the label is resized by area. It is not in the paper.

    A feature shorter than 1e-8 has no direction: its similarities are 0 and it gets no gradient.

    Args:
        temperature: divides the cosines, above 0. A plain attribute: a schedule may set it while training.
        pool: number of pixels along an axis that both maps are averaged to where they have more; None for all.
        balance: ``"none"`` for the mean over pixels, ``"class"`` for the mean over pixels of a class, then classes.
        num_classes: number of classes, the background included, of a label of indices; None reads it off the label,
            which waits for the device at each step.

    Raises:
        ValueError: when the temperature is not above 0, the pooling not to a whole number above 0, the class count
            below 2, or an option is none of those named.

    Example:
        >>> import torch
        >>> feature = torch.rand(2, 4, 8, 8)
        >>> float(CrossImageRelationalLoss()(feature, feature))
        0.0

    """

    def __init__(
        self,
        temperature: float = 0.1,
        pool: int | None = None,
        balance: str = "none",
        num_classes: int | None = None,
    ) -> None:
        super().__init__(temperature)
        check_pool(pool)
        check_option("balance", balance, ("none", "class"))
        check_num_classes(num_classes)
        self.pool = pool
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
            ValueError: when shapes do not match, there are too many pixels, or the label is missing or not of these
                classes.

        """
        student, teacher = as_inputs(student, teacher)
        with autocast_disabled(student):
            student, teacher = pool_nodes(student, teacher, self.pool, student.shape[0] ** 2)
            log_student, log_teacher = self._log_relation(student), self._log_relation(teacher)
            divergence = F.kl_div(log_student, log_teacher, reduction="none", log_target=True)
            divergence = divergence.sum(dim=-1).mean(dim=2)  # (B, N)
            if self.balance == "none":
                return divergence.mean()
            mask = one_hot_label(
                label, student, self.num_classes, 'the `balance="class"` of `CrossImageRelationalLoss`'
            )
            return class_balanced_mean(divergence, resize(mask, student.shape[2:], "area").flatten(start_dim=2))

    def _log_relation(self, feature: torch.Tensor) -> torch.Tensor:
        batch = feature.shape[0]
        pixel = unit_vectors(feature).flatten(start_dim=2).transpose(1, 2).flatten(0, 1)  # (B * N, C)
        similarity = (pixel @ pixel.T / self.temperature).unflatten(1, (batch, -1)).unflatten(0, (batch, -1))
        return F.log_softmax(similarity, dim=-1)  # (B, N, B, N)
