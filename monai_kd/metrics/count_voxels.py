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

"""Sizes of a prediction, a label and their overlap."""

from __future__ import annotations

import torch
from monai.metrics.utils import ignore_background
from monai.utils import convert_to_tensor


def count_voxels(
    y_pred: torch.Tensor, y: torch.Tensor, include_background: bool = True
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """
    Counts, for each item of the batch and each class, the voxels of prediction, label and both.

    Args:
        y_pred: binarised prediction, (B, C, *spatial), as for :py:class:`monai.metrics.DiceMetric`.
        y: binarised label of the same shape.
        include_background: whether to keep the first channel where there are several.

    Returns:
        |P|, |G| and |P and G|, each (B, C) in float64, which holds any count exactly.

    Raises:
        ValueError: when the shapes differ or a value is neither 0 nor 1.

    Example::

        >>> prediction, label = torch.tensor([[[1, 1, 0]]]), torch.tensor([[[0, 1, 1]]])
        >>> [count.item() for count in count_voxels(prediction, label)]
        [2.0, 2.0, 1.0]
    """
    if y_pred.shape != y.shape or y_pred.ndim < 3:
        raise ValueError(
            "`y_pred` and `y` must have one shape (B, C, *spatial), "
            f"but got {tuple(y_pred.shape)} and {tuple(y.shape)}; make both one-hot with `AsDiscreted(to_onehot=...)`."
        )
    masks = []
    for name, values in (("y_pred", y_pred), ("y", y)):
        values = convert_to_tensor(values, track_meta=False)
        mask = values == 1
        if not bool((mask | (values == 0)).all()):
            raise ValueError(
                f"`{name}` must hold only 0 and 1, but got values from {float(values.min()):g} to "
                f"{float(values.max()):g}; binarise with `AsDiscreted(argmax=True, to_onehot=...)`."
            )
        masks.append(mask)
    if not include_background:
        masks = list(ignore_background(*masks))
    prediction, label = masks
    spatial = tuple(range(2, prediction.ndim))
    return (
        prediction.sum(dim=spatial).double(),
        label.sum(dim=spatial).double(),
        (prediction & label).sum(dim=spatial).double(),
    )
