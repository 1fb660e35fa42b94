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
    check_same_shape,
    class_balanced_mean,
    one_hot_label,
    resize,
)


class HintLoss(nn.Module):
    """
    Pull the student's feature, projected to the teacher's channels, towards the teacher's feature.

    With e a feature of C channels and N pixels in the batch::

        loss = 1 / (N C) * sum over pixels and channels of (student - teacher)^2

    Hint training of Romero et al., "FitNets: Hints for Thin Deep Nets", arXiv:1412.6550, Eq. 3. Its regressor is a
    :py:class:`~monai_kd.networks.ChannelAdapter`, a 1x1 convolution, given to the ``DistillationTerm``, which brings
    it to the optimizer and the checkpoint. Without one the loss takes features of equal channels.

    - Eq. 3 is half the squared norm, a sum that grows with the feature. The default is what released codes of
      segmentation compute, the mean over all elements; the constant is the weight's.
    - The paper trains with the hint alone first and with the labels afterwards. The default is both together, as in
      released codes; the first stage of the paper is a run of ``DistillationHandler(supervised_weight=0.0)``.
    - The value follows the scale of the teacher's feature, so that one weight does not fit each layer. Released codes
      of classification take 100. Watch the ratio that ``DistillationHandler`` logs.
    - ``balance="class"`` averages the differences over the pixels of each class, then over the classes present in the
      batch, so that a small structure teaches as much as the background. The label is resized by area, so that a
      small lesion keeps its share of a cell. It is not in the paper.

    Args:
        balance: ``"none"`` for all pixels alike, ``"class"`` for the classes of the label alike.
        num_classes: number of classes, the background included, of a label of indices; None reads it off the label,
            which waits for the device at each step.

    Raises:
        ValueError: when the class count is below 2, or an option is none of those named.

    Example:
        >>> import torch
        >>> float(HintLoss()(torch.full((2, 4, 8, 8), 3.0), torch.ones(2, 4, 8, 8)))
        4.0

    """

    def __init__(self, balance: str = "none", num_classes: int | None = None) -> None:
        super().__init__()
        check_option("balance", balance, ("none", "class"))
        check_num_classes(num_classes)
        self.balance = balance
        self.num_classes = num_classes

    def forward(self, student: torch.Tensor, teacher: torch.Tensor, label: torch.Tensor | None = None) -> torch.Tensor:
        """
        Args:
            student: feature of shape (B, C, H, W) or (B, C, D, H, W).
            teacher: feature of the student's shape; it gets no gradient.
            label: class indices (B, 1, *spatial) or one-hot (B, classes, *spatial) of any spatial size; needed for
                ``balance="class"``, else not looked at.

        Returns:
            A scalar in the precision of the features, at least single.

        Raises:
            TypeError: when the features are not tensors.
            ValueError: when shapes do not match, or the label is missing or not of these classes.

        """
        student, teacher = as_inputs(student, teacher)
        check_same_shape(student, teacher)
        with autocast_disabled(student):
            difference = (student - teacher).square().mean(dim=1)  # (B, *spatial)
            if self.balance == "none":
                return difference.mean()
            mask = one_hot_label(label, student, self.num_classes, 'the `balance="class"` of `HintLoss`')
            return class_balanced_mean(difference, resize(mask, student.shape[2:], "area"))
