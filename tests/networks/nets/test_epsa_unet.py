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
from monai.networks.nets.basic_unet import Down, TwoConv
from torch import nn
from torch.nn import functional as F

from monai_kd.networks import FeatureCapture
from monai_kd.networks.nets import EPSAUNet
from monai_kd.report import network_cost


def test_parameters_of_the_paper() -> None:
    """Table 1: 7,763,041 for the U-Net, exactly; 7,774,374 with attention, of which 76 are not accounted for."""
    with torch.device("meta"):
        network = EPSAUNet()
    parameters = sum(parameter.numel() for parameter in network.parameters())
    attention = sum(parameter.numel() for parameter in network.encoder1[1].parameters())
    assert (parameters - attention, attention) == (7_763_041, 11_232 + 25)
    assert parameters == 7_774_374 - 76


def test_cost_of_a_frame() -> None:
    with torch.device("meta"):
        network = EPSAUNet()
    cost = network_cost(network, (1, 3, 512, 512), runs=1, warm_up=0)
    assert cost.flops == pytest.approx(102.46e9, rel=1e-3)
    assert cost.used_parameters == cost.parameters


def test_value_without_attention_is_a_unet() -> None:
    """Each skip enters before the upsampled map; nothing else happens on the way."""
    torch.manual_seed(0)
    network = EPSAUNet().double().eval().requires_grad_(False)
    network.encoder1[1] = nn.Identity()
    image = torch.rand(1, 3, 32, 48, dtype=torch.float64)
    maps = [network.encoder1(image)]
    for name in ("encoder2", "encoder3", "encoder4", "bottleneck"):
        down = network.get_submodule(name)
        assert isinstance(down, Down)
        maps.append(down.convs(F.max_pool2d(maps[-1], 2)))
    x = maps.pop()
    for name in ("decoder1", "decoder2", "decoder3", "decoder4"):
        up = network.get_submodule(name)
        assert isinstance(up.convs, TwoConv)
        x = F.conv_transpose2d(x, up.upsample.weight, up.upsample.bias, stride=2)
        x = up.convs(torch.cat([maps.pop(), x], dim=1))
    expected = F.conv2d(x, network.head.weight, network.head.bias)
    torch.testing.assert_close(network(image), expected)


def test_attention_is_between_the_first_two_convolutions() -> None:
    network = EPSAUNet().eval()
    with FeatureCapture(network, ["encoder1.0", "encoder1.1", "encoder1"]) as capture:
        network(torch.rand(1, 3, 32, 32))
        first, attended, last = capture.features.values()
    torch.testing.assert_close(network.encoder1[1](first), attended)
    torch.testing.assert_close(network.encoder1[2](attended), last)


def test_groups() -> None:
    assert [branch.groups for branch in EPSAUNet(groups=(1, 1, 2, 4)).encoder1[1].branches] == [1, 1, 2, 4]
    with pytest.raises(ValueError, match=r"`groups` must divide .*channels of a branch \(8\), but got \(1, 4, 8, 16\)"):
        EPSAUNet(groups=(1, 4, 8, 16))  # as EPSANet was released


def test_documented_layers() -> None:
    with torch.device("meta"):
        network, image = EPSAUNet().eval(), torch.zeros(1, 3, 512, 512)
    layers = ["encoder1", "encoder3", "decoder1", "decoder3"]
    with FeatureCapture(network, layers) as capture:
        network(image)
        shapes = [tuple(capture[layer].shape[1:]) for layer in layers]
    assert shapes == [(32, 512, 512), (128, 128, 128), (256, 64, 64), (64, 256, 256)]
