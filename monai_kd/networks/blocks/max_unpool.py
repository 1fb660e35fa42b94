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

"""The inverse of max pooling, in operations that every export knows."""

from __future__ import annotations

import torch


def max_unpool(pooled: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
    """
    Puts each value of a 2 x 2 pooled map back where the maximum was taken, zero elsewhere.

    Equal to :py:func:`torch.nn.functional.max_unpool2d` with kernel and stride 2. That one has no ONNX form and raises
    under ``torch.use_deterministic_algorithms`` on CUDA; a scatter over the flattened map has neither limit, as no two
    windows overlap.

    Args:
        pooled: (B, C, H, W).
        position: (B, C, H, W), index of the maximum in the flattened (2 H, 2 W) map, from ``max_pool2d`` of kernel and
            stride 2 with ``return_indices=True``.

    Returns:
        (B, C, 2 H, 2 W).

    Example::

        >>> import torch
        >>> max_unpool(torch.tensor([[[[7.0]]]]), torch.tensor([[[[2]]]]))
        tensor([[[[0., 0.],
                  [7., 0.]]]])
    """
    batch, channels, height, width = pooled.shape
    flat = pooled.new_zeros([batch, channels, 4 * height * width])
    flat = flat.scatter(2, position.flatten(2), pooled.flatten(2))
    return flat.reshape(batch, channels, 2 * height, 2 * width)
