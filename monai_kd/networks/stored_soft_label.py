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

"""A teacher that has said everything already."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from monai_kd.networks.soft_label import as_logits

ROUNDING = 1e-5  # what may lack to a sum of 1 inside of the image


class StoredSoftLabel(nn.Module):
    """
    The network of a :py:class:`~monai_kd.networks.Teacher` whose soft labels come with the batch, as
    :py:class:`~monai_kd.transforms.LoadSoftLabeld` loads them: it gives them as logits. No teacher is needed any more::

        Teacher(StoredSoftLabel(), image_key="soft_label")

    What the transforms in between have done to the distributions is made good. Interpolation leaves sums of 1 apart
    from rounding, which is scaled away; cubic one also values below 0, which are cut off. What is lacking to 1 lies
    outside of the image, where MONAI pads with zeros, images and labels as well: it is given to class 0, the
    background.

    Example::

        >>> import torch
        >>> soft_label = torch.tensor([[0.25, 0.0], [0.5, 0.0]]).view(1, 2, 1, 2)  # the second pixel is padded
        >>> StoredSoftLabel()(soft_label).softmax(1)[:, 0].flatten()
        tensor([0.5000, 1.0000])
    """

    def forward(self, soft_label: torch.Tensor) -> torch.Tensor:
        """
        Args:
            soft_label: probabilities (B, C, *spatial) of all classes, or of the foreground alone (B, 1, *spatial).

        Returns:
            logits of the same shape.
        """
        probabilities = soft_label.float().clamp(0, 1)
        if probabilities.shape[1] > 1:
            lacking = F.threshold(1 - probabilities.sum(1, keepdim=True), ROUNDING, 0.0)
            probabilities = torch.cat([probabilities[:, :1] + lacking, probabilities[:, 1:]], dim=1)
            probabilities = probabilities / probabilities.sum(1, keepdim=True)
        return as_logits(probabilities)
