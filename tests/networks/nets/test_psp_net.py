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

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from monai_kd.networks.nets import PSPNet


@pytest.fixture(scope="module")
def network() -> PSPNet:
    torch.manual_seed(0)
    return PSPNet().eval().requires_grad_(False)


def test_logits_are_those_at_an_eighth_upsampled(network: PSPNet) -> None:
    image = torch.rand(1, 1, 40, 51)  # of which 5 x 7 remain
    feature = network.encoder(image.expand(-1, 3, -1, -1))[3]
    logits = network.head(network.fuse(network.pyramid(feature)))
    assert feature.shape == (1, 2048, 5, 7)
    expected = F.interpolate(logits, (40, 51), mode="bilinear", align_corners=True)
    torch.testing.assert_close(network(image), expected)
    torch.testing.assert_close(
        network(image)[:, :, [0, 0, 39, 39], [0, 50, 0, 50]], logits[:, :, [0, 0, 4, 4], [0, 6, 0, 6]]
    )


def test_levels_of_the_pyramid(network: PSPNet) -> None:
    assert [branch[0].bins for branch in network.pyramid.branches] == [1, 2, 3, 6]
    assert [branch[1].out_channels for branch in network.pyramid.branches] == [512] * 4


def test_dropout_of_whole_channels(network: PSPNet) -> None:
    assert [(type(m), m.p) for m in network.modules() if isinstance(m, nn.modules.dropout._DropoutNd)] == [
        (nn.Dropout2d, 0.1)
    ]


def test_encoder_weights(network: PSPNet, tmp_path: Path) -> None:
    """Written in the published layout from one network, read by another."""
    published = {"fc.weight": torch.zeros(1), "fc.bias": torch.zeros(1)}
    stems = {"stem.0": "conv1", "stem.1": "bn1"} | {
        f"deepen.{i}.{j}": f"{layer}{i + 2}" for i in (0, 1) for j, layer in enumerate(("conv", "bn"))
    }
    for name, value in network.encoder.state_dict().items():
        layer, _, entry = name.rpartition(".")
        published[f"{stems.get(layer, layer.replace('stage', 'layer'))}.{entry}"] = value
    torch.save(published, tmp_path / "resnet50.pth")
    torch.manual_seed(1)
    loaded = PSPNet(encoder_weights=tmp_path / "resnet50.pth").eval()
    image = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(loaded.encoder(image)[3], network.encoder(image)[3])
    assert not torch.equal(loaded.head.weight, network.head.weight)


def test_weights_need_one_or_three_channels(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="`encoder_weights` needs `in_channels` 1 or 3, but got 4"):
        PSPNet(in_channels=4, encoder_weights=tmp_path / "any.pth")


def test_single_convolution_in_the_stem() -> None:
    with torch.device("meta"):
        network = PSPNet(deep_stem=False)
    assert sum(parameter.numel() for parameter in network.parameters()) == 46_582_850
    shapes = []
    network.encoder.stem.register_forward_hook(lambda module, inputs, output: shapes.append(output.shape))
    assert network(torch.zeros(1, 1, 64, 64, device="meta")).shape == (1, 2, 64, 64)
    assert shapes == [(1, 64, 32, 32)]
