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
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from monai_kd.networks.blocks import SimilarityAggregation


def _block(channels: int = 5, states: int = 3, grid: int = 2) -> SimilarityAggregation:
    return SimilarityAggregation(channels, states, grid).double()


def _maps(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(*shape, dtype=torch.float64), torch.randn(*shape, dtype=torch.float64)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 5))
def test_cells_are_those_of_adaptive_pooling(height: int, width: int, grid: int) -> None:
    x = torch.rand(1, 2, height, width, dtype=torch.float64)
    expected = F.adaptive_avg_pool2d(x, grid + 2)[:, :, 1:-1, 1:-1]
    torch.testing.assert_close(SimilarityAggregation(2, 2, grid)._inner_cells(x), expected)


def test_value() -> None:
    block = _block()
    x, detail = _maps(2, 5, 8, 12)
    expected = []
    for image, shallow in zip(x, detail, strict=True):
        pixels = image.flatten(1)  # (C, H W)
        state = block.state.weight[:, :, 0, 0] @ pixels + block.state.bias[:, None]
        projection = block.projection.weight[:, :, 0, 0] @ pixels + block.projection.bias[:, None]
        where = (shallow.exp() / shallow.exp().sum(0))[1]
        masked = projection.reshape(3, 8, 12) * where
        # a grid of 4 x 4 cells of 2 x 3 pixels, the inner 2 x 2 of which are nodes
        anchors = masked[:, 2:6, 3:9].reshape(3, 2, 2, 2, 3).mean((2, 4)).flatten(1)  # (S, N)
        assignment = (anchors.T @ projection).exp()
        assignment = assignment / assignment.sum(0)  # (N, H W)
        nodes = state @ assignment.T
        mixed = nodes @ block.mix_nodes.weight[:, :, 0].T + block.mix_nodes.bias
        nodes = (block.mix_states.weight[:, :, 0] @ (mixed - nodes)).clamp(min=0)
        expected.append((pixels + block.extend.weight[:, :, 0, 0] @ nodes @ assignment).reshape(5, 8, 12))
    torch.testing.assert_close(block(x, detail), torch.stack(expected))


def test_nodes_that_keep_their_state_add_nothing() -> None:
    block = _block()
    torch.nn.init.zeros_(block.mix_nodes.bias)
    with torch.no_grad():
        block.mix_nodes.weight.copy_(torch.eye(4).unsqueeze(2))
    x, detail = _maps(2, 5, 8, 8)
    torch.testing.assert_close(block(x, detail), x)


def test_only_the_second_channel_against_all_counts() -> None:
    """As released: the detail enters as one channel of a softmax, which a common shift does not change."""
    block = _block()
    x, detail = _maps(1, 5, 8, 8)
    torch.testing.assert_close(block(x, detail + 3), block(x, detail))
    swapped = detail[:, [4, 1, 0, 3, 2]]
    torch.testing.assert_close(block(x, swapped), block(x, detail))
    assert not torch.allclose(block(x, detail[:, [1, 0, 2, 3, 4]]), block(x, detail))


def test_gradient() -> None:
    block = _block().requires_grad_(False)
    maps = [tensor.requires_grad_() for tensor in _maps(1, 5, 4, 5)]
    assert torch.autograd.gradcheck(block, maps)
