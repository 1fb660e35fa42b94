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
from monai.networks.nets import resnet18
from torch import nn
from torch.nn import functional as F

from monai_kd.networks.blocks import BasicResNetEncoder
from monai_kd.networks.nets import ResNet18Seg


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    """MONAI's ResNet-18 with torchvision's names and shapes, the classifier included."""
    torch.manual_seed(0)
    network = resnet18(
        spatial_dims=2, n_input_channels=3, num_classes=10, conv1_t_stride=2, bias_downsample=False, shortcut_type="B"
    ).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1), nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network.requires_grad_(False)


@pytest.fixture(scope="module")
def weights(resnet: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(resnet.state_dict(), path)
    return path


@pytest.mark.parametrize(("height", "width"), [(64, 96), (65, 33), (1, 40)])
def test_imagenet_weights_make_the_network_of_resnet18(
    resnet: nn.Module, weights: Path, height: int, width: int
) -> None:
    network = ResNet18Seg(in_channels=1, encoder_weights=weights).eval().requires_grad_(False)
    image = torch.rand(2, 1, height, width)
    x = resnet.maxpool(resnet.act(resnet.bn1(resnet.conv1(image.expand(-1, 3, -1, -1)))))
    for layer in (resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4):
        x = layer(x)
    assert x.shape[1:] == (512, -(-height // 32), -(-width // 32))
    small = torch.einsum("bchw,oc->bohw", x, network.head.weight[:, :, 0, 0]) + network.head.bias[:, None, None]
    expected = F.interpolate(small, size=(height, width), mode="bilinear", align_corners=True)
    torch.testing.assert_close(network(image), expected, rtol=1e-4, atol=1e-5)


def test_without_weights_it_starts_at_random(weights: Path) -> None:
    torch.manual_seed(0)
    random, loaded = ResNet18Seg(), ResNet18Seg(encoder_weights=weights)
    assert not torch.equal(random.encoder.stem[0].weight, loaded.encoder.stem[0].weight)


def test_weights_of_resnet34(tmp_path: Path) -> None:
    deeper = BasicResNetEncoder(depth=34).state_dict()
    torch.save({name.replace("stage", "layer"): value for name, value in deeper.items()}, tmp_path / "resnet34.pth")
    with pytest.raises(ValueError, match=r"(?s)must hold torchvision's resnet18, but .*Unexpected key.*stage1.2.conv1"):
        ResNet18Seg(encoder_weights=tmp_path / "resnet34.pth")


def test_weights_need_one_or_three_channels(weights: Path) -> None:
    with pytest.raises(ValueError, match="`encoder_weights` needs `in_channels` 1 or 3, but got 4"):
        ResNet18Seg(in_channels=4, encoder_weights=weights)


def test_depth_of_the_encoder() -> None:
    with pytest.raises(ValueError, match="`depth` must be one of 18, 34, but got 50"):
        BasicResNetEncoder(depth=50)
