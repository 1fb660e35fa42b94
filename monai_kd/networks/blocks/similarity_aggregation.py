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

"""Polyp-PVT's similarity aggregation module: pixels exchange what they hold through a few nodes of a graph."""

from __future__ import annotations

import torch
from torch import nn


class SimilarityAggregation(nn.Module):
    r"""
    Assigns the pixels of a map to a few nodes by similarity, lets the nodes exchange their states in one graph
    convolution, and adds the result to the pixels again.

    .. math::

        A = \mathrm{softmax}_{nodes}\big(P(e \odot p)^\top p\big), \qquad
        y = x + g\,\big(\mathrm{relu}(W_s (N W_n - N))\, A\big), \qquad N = s A^\top

    with :math:`s, p` two projections of the map, :math:`e` where the detail is, :math:`P` the mean over each of the
    inner cells of a grid (the outer ring of cells makes no node), :math:`W_n` mixing nodes and :math:`W_s` states.

    Dong et al., Polyp-PVT, CAAI Artificial Intelligence Research 2023 (arXiv:2108.06932), SAM. As in the released code
    :math:`e` is the second channel of a softmax over all channels of ``detail``, and the sum over pixels in :math:`N`
    is not divided by their number. The means over cells equal those of adaptive pooling; written as matrix products
    they also export with a free H and W, and have a deterministic gradient on a GPU.

    Args:
        channels: channels of the map.
        states: channels of a node.
        grid: nodes along each axis.

    Example::

        >>> import torch
        >>> SimilarityAggregation(32)(torch.zeros(1, 32, 8, 8), torch.zeros(1, 32, 8, 8)).shape
        torch.Size([1, 32, 8, 8])
    """

    def __init__(self, channels: int, states: int = 16, grid: int = 4) -> None:
        super().__init__()
        self.grid = grid
        self.state = nn.Conv2d(channels, states, kernel_size=1)
        self.projection = nn.Conv2d(channels, states, kernel_size=1)
        self.mix_nodes = nn.Conv1d(grid**2, grid**2, kernel_size=1)
        self.mix_states = nn.Conv1d(states, states, kernel_size=1, bias=False)
        self.extend = nn.Conv2d(states, channels, kernel_size=1, bias=False)

    def forward(self, x: torch.Tensor, detail: torch.Tensor) -> torch.Tensor:
        """
        Args:
            x: the map of high-level features, (B, C, H, W).
            detail: the map of low-level features, (B, C, H, W), two channels or more.

        Returns:
            (B, C, H, W).
        """
        projection = self.projection(x)  # (B, S, H, W)
        anchors = self._inner_cells(projection * detail.softmax(dim=1)[:, 1:2]).flatten(2)  # (B, S, N)
        assignment = (anchors.transpose(1, 2) @ projection.flatten(2)).softmax(dim=1)  # (B, N, H W)
        nodes = self.state(x).flatten(2) @ assignment.transpose(1, 2)  # (B, S, N)
        nodes = self.mix_nodes(nodes.transpose(1, 2)).transpose(1, 2) - nodes
        nodes = self.mix_states(nodes).relu()
        return x + self.extend((nodes @ assignment).unflatten(2, x.shape[2:]))

    def _inner_cells(self, x: torch.Tensor) -> torch.Tensor:
        """The means of adaptive pooling to ``grid + 2`` cells an axis, without the outer ring: (B, S, grid, grid)."""
        return self._cells(x.shape[2], x) @ x @ self._cells(x.shape[3], x).transpose(0, 1)

    def _cells(self, size: int, like: torch.Tensor) -> torch.Tensor:
        """A row for each inner cell, which averages the pixels of that cell: (grid, size)."""
        cell = torch.arange(1, self.grid + 1, device=like.device).unsqueeze(1)
        begin = cell * size // (self.grid + 2)
        end = ((cell + 1) * size + self.grid + 1) // (self.grid + 2)  # rounded up: neighbours may share a pixel
        pixel = torch.arange(size, device=like.device)
        return ((pixel >= begin) & (pixel < end)).to(like.dtype) / (end - begin).to(like.dtype)
