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

"""Where a soft label is wrong."""

from __future__ import annotations

import torch

from monai_kd.corrections._inputs import check_soft_label
from monai_kd.losses._channels import most_probable


def false_pixels(soft_label: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
    """
    Mark the pixels whose most probable class is not the label's, F in Sec. 2.2 of PLC-KD (see
    :py:class:`~monai_kd.corrections.AssistantCorrection`). Of equal probabilities the first class counts; a foreground
    probability of one channel has to exceed 0.5.

    Args:
        soft_label: probabilities (B, C, *spatial) that sum to 1 over C, or of the foreground alone (B, 1, *spatial).
        label: class indices (B, 1, *spatial) of any dtype.

    Returns:
        bool, (B, 1, *spatial).

    Raises:
        TypeError: when an argument is not a tensor.
        ValueError: when the shapes do not fit, or the values are no probabilities or class indices.

    Example::

        >>> import torch
        >>> soft_label = torch.tensor([[0.9, 0.4], [0.1, 0.6]]).view(1, 2, 1, 2)  # two classes, two pixels
        >>> false_pixels(soft_label, torch.ones(1, 1, 1, 2)).tolist()
        [[[[True, False]]]]
    """
    soft_label, label = check_soft_label(soft_label, label)
    return most_probable(soft_label) != label
