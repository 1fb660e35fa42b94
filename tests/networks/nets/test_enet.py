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

from monai_kd.networks.blocks import ENetBottleneck
from monai_kd.networks.nets import ENet


@pytest.fixture(scope="module")
def network() -> ENet:
    return ENet()


def test_stem_is_a_convolution_beside_the_pooled_image(network: ENet) -> None:
    stem, image = network.encoder.stem.eval(), torch.rand(1, 3, 16, 16)
    joined = torch.cat([stem.conv.conv(image), nn.functional.max_pool2d(image, 2)], dim=1)
    torch.testing.assert_close(stem(image), nn.functional.prelu(stem.adn.N(joined), stem.adn.A.weight))


@pytest.mark.parametrize("stage", ["stage2", "stage3"])
def test_dilations_of_table_1(network: ENet, stage: str) -> None:
    spatial = [
        [m for m in block.modules() if isinstance(m, nn.Conv2d)][1:-1] for block in network.encoder.get_submodule(stage)
    ]
    assert [convs[0].dilation[0] for convs in spatial] == [1, 2, 1, 4, 1, 8, 1, 16]
    assert [[conv.kernel_size for conv in convs] for convs in spatial] == 2 * [
        [(3, 3)],
        [(3, 3)],
        [(5, 1), (1, 5)],
        [(3, 3)],
    ]


def test_decoder_undoes_the_poolings_of_the_encoder(network: ENet) -> None:
    network.eval()
    image = torch.rand(1, 1, 32, 32)
    with torch.no_grad():
        stem = network.encoder.stem(image.expand(-1, 3, -1, -1))
        x, position1 = network.encoder.down1(stem)
        x, position2 = network.encoder.down2(network.encoder.stage1(x))
        x = network.stage4(network.up4(network.encoder.stage3(network.encoder.stage2(x)), position2))
        expected = network.head(network.stage5(network.up5(x, position1)))
        assert torch.equal(position1, nn.functional.max_pool2d(stem, 2, return_indices=True)[1])
        torch.testing.assert_close(network(image), expected)


def test_dropout_of_the_released_code(network: ENet) -> None:
    dropouts = [module for module in network.modules() if isinstance(module, nn.Dropout2d)]
    residual_blocks = sum(isinstance(module, ENetBottleneck) for module in network.modules()) + 4  # two down, two up
    assert [dropout.p for dropout in dropouts] == [0.1] * residual_blocks


def test_too_many_channels_for_the_stem() -> None:
    with pytest.raises(ValueError, match="`in_channels` must be below 16, but got 16"):
        ENet(in_channels=16)
