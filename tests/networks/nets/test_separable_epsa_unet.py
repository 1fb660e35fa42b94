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

from monai_kd.networks import FeatureCapture
from monai_kd.networks.nets import EPSAUNet, SeparableEPSAUNet
from monai_kd.report import network_cost


def test_parameters() -> None:
    """
    Table 1 has 1,839,333, which no reading reaches; this one is counted by hand. Per block: kernels of 5 in both depth-
    wise convolutions, two matrices, two pairs of norms; transposed convolutions with bias; the head; the attention.
    """
    channels = [(3, 32), (32, 64), (64, 128), (128, 256), (256, 512), (512, 256), (256, 128), (128, 64), (64, 32)]
    blocks = sum(5 * (a + b) + a * b + b * b + 4 * b for a, b in channels)
    upsamplings = sum(4 * a * b + b for a, b in channels[5:])
    assert blocks + upsamplings + 33 == 1_501_776
    with torch.device("meta"):
        network = SeparableEPSAUNet()
    assert sum(parameter.numel() for parameter in network.parameters()) == 1_501_776 + 11_257


def test_cost_of_a_frame_is_a_fifth_of_the_teachers() -> None:
    with torch.device("meta"):
        teacher, student = EPSAUNet(), SeparableEPSAUNet()
    shape = (1, 3, 512, 512)
    costs = [network_cost(network, shape, runs=1, warm_up=0) for network in (student, teacher)]
    assert costs[0].flops == pytest.approx(21.13e9, rel=1e-3)
    assert costs[0].flops / costs[1].flops == pytest.approx(0.206, abs=0.001)
    assert costs[0].used_parameters == costs[0].parameters


def test_value_without_attention_is_a_unet() -> None:
    network = SeparableEPSAUNet().double().eval().requires_grad_(False)
    network.encoder1[1] = nn.Identity()
    image = torch.rand(1, 3, 32, 48, dtype=torch.float64)
    maps = [network.encoder1(image)]
    for name in ("encoder2", "encoder3", "encoder4", "bottleneck"):
        down = network.get_submodule(name)
        maps.append(down[2](down[1](F.max_pool2d(maps[-1], 2))))
    x = maps.pop()
    for name in ("decoder1", "decoder2", "decoder3", "decoder4"):
        up = network.get_submodule(name)
        x = F.conv_transpose2d(x, up.upsample.weight, up.upsample.bias, stride=2)
        x = up.convs(torch.cat([maps.pop(), x], dim=1))
    torch.testing.assert_close(network(image), F.conv2d(x, network.head.weight, network.head.bias))


def test_every_block_looks_along_rows_then_along_columns() -> None:
    depthwise = [m for m in SeparableEPSAUNet().modules() if isinstance(m, nn.Conv2d) and m.groups == m.in_channels > 1]
    assert [conv.kernel_size for conv in depthwise] == [(1, 5), (5, 1)] * 9


def test_features_are_those_of_the_teacher() -> None:
    """In channels and size, so that one discriminator sees both."""
    shapes, layers = [], ["encoder1", "encoder3", "decoder1", "decoder3"]
    for build in (SeparableEPSAUNet, EPSAUNet):
        with torch.device("meta"):
            network, image = build().eval(), torch.zeros(1, 3, 512, 512)
        with FeatureCapture(network, layers) as capture:
            network(image)
            shapes.append([tuple(capture[layer].shape[1:]) for layer in layers])
    assert shapes == [[(32, 512, 512), (128, 128, 128), (256, 64, 64), (64, 256, 256)]] * 2


def test_groups() -> None:
    assert [branch.groups for branch in SeparableEPSAUNet(groups=(8, 8, 8, 8)).encoder1[1].branches] == [8] * 4
