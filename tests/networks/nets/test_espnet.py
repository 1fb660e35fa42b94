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
from torch.nn import functional as F

from monai_kd.networks.blocks import EfficientSpatialPyramid
from monai_kd.networks.nets import ESPNet


@pytest.fixture(scope="module")
def network() -> ESPNet:
    torch.manual_seed(0)
    return ESPNet().eval().requires_grad_(False)


def test_modules_of_emkd(network: ESPNet) -> None:
    modules = [m for m in network.encoder.modules() if isinstance(m, EfficientSpatialPyramid)]
    assert [module.reduce.conv.stride[0] for module in modules] == [2, 1, 1, 2, 1, 1, 1]
    assert [module.adn.N.num_features for module in modules] == [64, 64, 64, 128, 128, 128, 128]
    assert [module.has_identity for module in modules] == [False, True, True, False, True, True, True]


def test_each_scale_is_joined_with_what_entered_it_and_the_pooled_image(network: ESPNet) -> None:
    encoder, image = network.encoder, torch.rand(2, 3, 32, 48)
    half = F.avg_pool2d(image, 3, stride=2, padding=1)
    feature1 = encoder.adn1(torch.cat([encoder.stem(image), half], dim=1))
    x = encoder.down2(feature1)
    quarter = F.avg_pool2d(half, 3, stride=2, padding=1)
    feature2 = encoder.adn2(torch.cat([encoder.stage2(x), x, quarter], dim=1))
    y = encoder.down3(feature2)
    feature3 = encoder.adn3(torch.cat([y, encoder.stage3(y)], dim=1))
    for feature, expected in zip(encoder(image), (feature1, feature2, feature3), strict=True):
        torch.testing.assert_close(feature, expected)


@pytest.mark.parametrize("lost", [0, 1, 2])
def test_every_scale_reaches_the_logits(lost: int) -> None:
    torch.manual_seed(0)
    network = ESPNet().requires_grad_(False)  # in training, where normalisation keeps every signal at its size

    def without(module: object, inputs: object, features: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return tuple(feature * (index != lost) for index, feature in enumerate(features))

    image = torch.rand(1, 1, 32, 32)
    whole = network(image)
    hook = network.encoder.register_forward_hook(without)
    partial = network(image)
    hook.remove()
    assert (whole - partial).norm() > 0.01 * whole.norm()


@pytest.mark.parametrize(("classes", "width"), [(1, 5), (2, 5), (5, 5), (20, 20)])
def test_width_of_the_decoder(classes: int, width: int) -> None:
    """5 of EMKD's code with 2 classes, and the number of classes of ESPNet's own with 20."""
    with torch.device("meta"):
        network = ESPNet(out_channels=classes)
    assert network.merge2[1].adn.N.num_features == width
    assert network.head.in_channels == network.head.out_channels == classes
