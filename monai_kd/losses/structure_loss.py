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
from torch import nn

from ._inputs import as_inputs, autocast_disabled, check_shares


class StructureLoss(nn.Module):
    """
    Pull the student's foreground towards the label, most of all at its boundary: the supervised loss of PraNet.

    With y the label, p = sigmoid(logits), and sums over the pixels of an image::

        w    = 1 + 5 * |mean of y in the window around the pixel - y|
        BCE  = sum of w * cross entropy(p, y) / sum of w
        IoU  = (sum of w p y + 1) / (sum of w (p + y - p y) + 1)
        loss = mean over images of BCE + 1 - IoU

    Fan et al., "PraNet: Parallel Reverse Attention Network for Polyp Segmentation", MICCAI 2020, section 2.4. It is the
    segmentation loss of Polyp-PVT and of the code released with KDAS, and called as MONAI's are; KDAS's paper
    has BCE + Dice (Eq. 7). For two scales wrap it in ``monai.losses.DeepSupervisionLoss(..., weight_mode="same")``.

    - In the released code the legacy argument ``reduce="none"``, true as any string, averages the cross entropy before
      it is weighted, so that the weight cancels. ``weighted_bce=False`` is that.
    - Outside of the image the window sees background, so that a structure at the edge has a boundary there. Along an
      axis shorter than the window it has the largest odd length that fits.

    Args:
        window: side of the square or cubic window, an odd number of pixels; 31 was made for images of 352 x 352.
        boundary_weight: weight that the boundary has on top of 1, at least 0.
        weighted_bce: whether the boundary counts more in the cross entropy too, and not in the IoU alone.

    Raises:
        ValueError: when the window is not odd and above 0, or the weight negative.

    Example:
        >>> import torch
        >>> label = (torch.rand(2, 1, 64, 64) > 0.5).float()
        >>> float(StructureLoss()(200 * label - 100, label))
        0.0

    """

    def __init__(self, window: int = 31, boundary_weight: float = 5.0, weighted_bce: bool = True) -> None:
        super().__init__()
        if window < 1 or window % 2 != 1:
            raise ValueError(f"`window` must be an odd number of pixels above 0, but got {window}.")
        if not boundary_weight >= 0:
            raise ValueError(f"`boundary_weight` must be at least 0, but got {boundary_weight}.")
        self.window = window
        self.boundary_weight = boundary_weight
        self.weighted_bce = weighted_bce

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """
        Args:
            input: logits of shape (B, C, H, W) or (B, C, D, H, W), a foreground in each channel.
            target: label of the same shape, 0 or 1 (or between) of any dtype.

        Returns:
            A scalar in the precision of the logits, at least single.

        Raises:
            TypeError: when one of them is not a tensor.
            ValueError: when the shapes differ or (on the CPU) the label is not from 0 to 1.

        """
        logits, label = as_inputs(input, target, names=("input", "target"))
        if logits.shape != label.shape:
            raise ValueError(
                f"`input` must have the shape of `target`, but got {tuple(logits.shape)} and {tuple(label.shape)}."
            )
        check_shares("target", label, "a foreground")
        with autocast_disabled(logits):
            weight = 1 + self.boundary_weight * (self._window_mean(label) - label).abs()
            entropy = F.binary_cross_entropy_with_logits(logits, label, reduction="none")
            entropy, label, weight, p = (x.flatten(2) for x in (entropy, label, weight, logits.sigmoid()))
            bce = (weight * entropy).sum(2) / weight.sum(2) if self.weighted_bce else entropy.mean(2)
            overlap = (weight * p * label).sum(2)
            iou = (overlap + 1) / ((weight * (p + label)).sum(2) - overlap + 1)
            return (bce + 1 - iou).mean()

    def _window_mean(self, label: torch.Tensor) -> torch.Tensor:
        pool = F.avg_pool2d if label.ndim == 4 else F.avg_pool3d
        for axis, length in enumerate(label.shape[2:]):  # one after the other: 2 * 31 values a pixel and not 31 * 31
            kernel = [1] * (label.ndim - 2)
            kernel[axis] = min(self.window, length - 1 + length % 2)
            label = pool(label, kernel, stride=1, padding=[side // 2 for side in kernel])
        return label
