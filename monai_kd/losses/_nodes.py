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

"""What the losses on relations between pixels share: maps pooled to few nodes, and features as directions."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from ._inputs import resize

# values in all similarity matrices of a batch, 1 GiB in single precision; a training step holds a few times as much
MAX_SIMILARITIES = 2**28


def pool_nodes(
    student: torch.Tensor, teacher: torch.Tensor, pool: int | None, matrices: int, mode: str = "average"
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return both maps on one grid, whose cells are the nodes between which similarities are taken.

    Along each axis the grid has ``pool`` cells, or as many as the smaller map has pixels where they are fewer.

    Args:
        student: map of shape (B, C, *spatial).
        teacher: map of that number of dimensions.
        pool: number of cells along an axis; None for the pixels of the smaller map.
        matrices: number of matrices of nodes x nodes that the caller makes of one map.
        mode: ``"average"`` or ``"max"`` over the pixels of a cell.

    Raises:
        ValueError: when these matrices hold more than ``MAX_SIMILARITIES`` values.

    """
    grid = [min(pool or s, s, t) for s, t in zip(student.shape[2:], teacher.shape[2:])]
    nodes = math.prod(grid)
    if matrices * nodes**2 > MAX_SIMILARITIES:
        most = int(math.isqrt(MAX_SIMILARITIES // matrices) ** (1 / len(grid)) + 1e-6)
        raise ValueError(
            f"`student` and `teacher` must have at most {math.isqrt(MAX_SIMILARITIES // matrices)} nodes in a batch of "
            f"{student.shape[0]}, but got {nodes} in the grid {tuple(grid)}: similarities of "
            f"{4 * matrices * nodes**2 / 2**30:.1f} GiB for each network; pass a `pool` of at most {max(1, most)}."
        )
    return _pool(student, grid, mode), _pool(teacher, grid, mode)


def unit_vectors(feature: torch.Tensor, dim: int = 1, detach_norm: bool = False) -> torch.Tensor:
    """Return the feature divided by its length along an axis; one shorter than 1e-8 gives 0 and gets no gradient.

    Args:
        feature: tensor of any shape.
        dim: the axis along which a vector lies.
        detach_norm: whether the gradient takes the length for a constant.

    """
    length = torch.linalg.vector_norm(feature, dim=dim, keepdim=True)
    length = length.detach() if detach_norm else length
    # where on both sides: a division masked only afterwards would still send NaN backwards
    return (feature / length.where(length > 1e-8, 1.0)).where(length > 1e-8, 0.0)


def class_centres(feature: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the mean feature of each class (B, K, C), 0 without a pixel, of a feature (B, C, N) and mask (B, K, N)."""
    count = mask.sum(dim=2, keepdim=True)
    share = mask / count.where(count > 0, 1.0)
    return share.to(feature.dtype) @ feature.transpose(1, 2)


def check_pool(pool: int | None) -> None:
    """Refuse a pooling to anything but a whole number of cells.

    Raises:
        ValueError: when it is neither None nor a whole number above 0.

    """
    if pool is not None and (not isinstance(pool, int) or isinstance(pool, bool) or pool < 1):
        raise ValueError(f"`pool` must be None or a whole number of cells above 0, but got {pool!r}.")


def _pool(feature: torch.Tensor, grid: list[int], mode: str) -> torch.Tensor:
    if mode == "average":
        return resize(feature, grid, "area")
    adaptive_max_pool = F.adaptive_max_pool2d if feature.ndim == 4 else F.adaptive_max_pool3d
    return adaptive_max_pool(feature, grid)
