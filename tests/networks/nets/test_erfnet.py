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

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from monai_kd.networks.blocks import NonBottleneck1D
from monai_kd.networks.nets import ERFNet


@pytest.fixture(scope="module")
def network() -> ERFNet:
    torch.manual_seed(0)
    return ERFNet().eval().requires_grad_(False)


def test_stem_is_a_convolution_beside_the_pooled_slice(network: ERFNet) -> None:
    stem, image = network.encoder.stem, torch.rand(2, 1, 16, 16)
    conv, norm = stem.conv.conv, stem.adn.N
    strided = F.conv2d(image, conv.weight, conv.bias, stride=2, padding=1)
    joined = torch.cat([strided, F.max_pool2d(image, 2)], dim=1)
    expected = F.batch_norm(joined, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=1e-3)
    torch.testing.assert_close(stem(image), F.relu(expected))


def test_layers_of_table_1(network: ERFNet) -> None:
    def blocks(part: nn.Module) -> list[tuple[int, int]]:
        """Channels and dilation."""
        convs = [m.branch[2].conv for m in part.modules() if isinstance(m, NonBottleneck1D)]
        return [(conv.in_channels, conv.dilation[0]) for conv in convs]

    assert blocks(network.encoder) == [(64, 1)] * 5 + [(128, 2), (128, 4), (128, 8), (128, 16)] * 2
    assert blocks(network.decoder) == [(64, 1)] * 2 + [(16, 1)] * 2


def test_dropout_of_the_released_code(network: ERFNet) -> None:
    def shares(part: nn.Module) -> list[float]:
        return [module.p for module in part.modules() if isinstance(module, nn.Dropout2d)]

    assert shares(network.encoder) == [0.03] * 5 + [0.3] * 8
    assert shares(network.decoder) == []


def test_upsampling_of_the_decoder(network: ERFNet) -> None:
    up, x = network.decoder[0], torch.rand(1, 128, 4, 5)
    conv, norm = up.conv, up.adn.N
    larger = F.conv_transpose2d(x, conv.weight, conv.bias, stride=2, padding=1, output_padding=1)
    expected = F.batch_norm(larger, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=1e-3)
    assert expected.shape[2:] == (8, 10)
    torch.testing.assert_close(up(x), F.relu(expected))


def test_a_single_channel_is_not_repeated(network: ERFNet) -> None:
    assert network.encoder.stem.conv.conv.weight.shape == (15, 1, 3, 3)


def test_too_many_channels_for_the_stem() -> None:
    with pytest.raises(ValueError, match="`in_channels` must be below 16, but got 16"):
        ERFNet(in_channels=16)
