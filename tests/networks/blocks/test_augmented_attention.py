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
from torch.nn import functional as F

from monai_kd.networks.blocks import AugmentedAttention


def _block() -> AugmentedAttention:
    torch.manual_seed(0)
    block = AugmentedAttention(6).double().eval()
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.3), nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5), nn.init.normal_(module.bias, std=0.3)
    return block


def _layer(x: torch.Tensor, conv: nn.Module, norm: nn.Module) -> torch.Tensor:
    """Convolution of kernel 1, batch normalisation and ReLU, as matrix arithmetic."""
    x = torch.einsum("oi,bihw->bohw", conv.weight[:, :, 0, 0], x) + conv.bias[:, None, None]
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    return ((x - norm.running_mean[:, None, None]) * scale[:, None, None] + norm.bias[:, None, None]).clamp(min=0)


def test_value() -> None:
    block = _block()
    feature, skip = torch.randn(2, 2, 6, 5, 7, dtype=torch.float64)
    context = _layer(feature.mean((2, 3), keepdim=True), block.decoder_context[1], block.decoder_context[2])
    context = context + _layer(skip.mean((2, 3), keepdim=True), block.skip_context[1], block.skip_context[2])
    score = F.linear(context[:, :, 0, 0], block.weight[0].weight[:, :, 0, 0], block.weight[0].bias)
    weight = (score.exp() / score.exp().sum(1, keepdim=True))[:, :, None, None]
    expected = feature + weight * _layer(skip, block.skip.conv, block.skip.adn.N)
    torch.testing.assert_close(block(feature, skip), expected)


def test_weights_of_an_image_sum_to_one() -> None:
    block = _block()
    weights = []
    block.weight.register_forward_hook(lambda module, inputs, output: weights.append(output))
    block(torch.randn(3, 6, 4, 4, dtype=torch.float64), torch.randn(3, 6, 4, 4, dtype=torch.float64))
    torch.testing.assert_close(weights[0].sum(1), torch.ones(3, 1, 1, dtype=torch.float64))
