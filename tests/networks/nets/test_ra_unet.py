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
from monai.networks.nets import resnet34
from torch import nn

from monai_kd.networks.nets import RAUNet


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    """MONAI's ResNet-34 with torchvision's names and shapes, the classifier included."""
    torch.manual_seed(0)
    network = resnet34(
        spatial_dims=2, n_input_channels=3, num_classes=10, conv1_t_stride=2, bias_downsample=False, shortcut_type="B"
    ).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1), nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network


@pytest.fixture(scope="module")
def weights(resnet: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "resnet34.pth"
    torch.save(resnet.state_dict(), path)
    return path


def test_imagenet_weights_make_the_encoder_of_resnet34(resnet: nn.Module, weights: Path) -> None:
    network = RAUNet(in_channels=1, encoder_weights=weights).eval()
    image = torch.rand(2, 1, 64, 64)
    expected, x = [], image.expand(-1, 3, -1, -1)
    with torch.no_grad():
        x = resnet.maxpool(resnet.act(resnet.bn1(resnet.conv1(x))))
        for layer in (resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4):
            x = layer(x)
            expected.append(x)
        features = network.encoder(network.input(image))
    for ours, theirs in zip(features, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_without_weights_it_starts_at_random(weights: Path) -> None:
    torch.manual_seed(0)
    random, loaded = RAUNet(), RAUNet(encoder_weights=weights)
    assert not torch.equal(random.encoder.stem[0].weight, loaded.encoder.stem[0].weight)
    # He's initialisation by fan-out: 64 channels x 7 x 7
    assert random.encoder.stem[0].weight.std().item() == pytest.approx((2 / (64 * 49)) ** 0.5, rel=0.05)


def test_old_files_without_batch_counts(resnet: nn.Module, tmp_path: Path) -> None:
    """Torchvision's first resnet34 file predates ``num_batches_tracked``."""
    path = tmp_path / "old.pth"
    torch.save({k: v for k, v in resnet.state_dict().items() if not k.endswith("num_batches_tracked")}, path)
    assert torch.equal(RAUNet(encoder_weights=str(path)).encoder.stem[0].weight, resnet.conv1.weight)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"`encoder_weights` must be a local file .*nowhere\.pth.*pass None"):
        RAUNet(encoder_weights=tmp_path / "nowhere.pth")


def _drop(state: dict, name: str) -> dict:
    return {key: value for key, value in state.items() if key != name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: _drop(state, "layer3.5.conv2.weight"), "Missing key.*stage3.5.conv2.weight"),
        (lambda state: {**state, "layer1.3.conv1.weight": torch.zeros(1)}, "Unexpected key.*stage1.3.conv1.weight"),
        (lambda state: {**state, "conv1.weight": torch.zeros(64, 1, 7, 7)}, "size mismatch for stem.0.weight"),
        (lambda state: {"state_dict": state}, "must hold a state dict, but got a dict of state_dict"),
        (lambda state: [1, 2], "must hold a state dict, but got a list"),
    ],
    ids=["missing", "unexpected", "shape", "nested", "list"],
)
def test_file_of_another_network(resnet: nn.Module, tmp_path: Path, change, message: str) -> None:
    path = tmp_path / "other.pth"
    torch.save(change(resnet.state_dict()), path)
    with pytest.raises(ValueError, match=r"(?s)`encoder_weights`.*" + message):
        RAUNet(encoder_weights=path)


def test_weights_need_one_or_three_channels(weights: Path) -> None:
    with pytest.raises(ValueError, match="`encoder_weights` needs `in_channels` 1 or 3, but got 4"):
        RAUNet(in_channels=4, encoder_weights=weights)


def test_16_pixels_would_broadcast() -> None:
    """At 16 x 16 the last two maps of the encoder both have one pixel, and adding the skip would broadcast silently."""
    with pytest.raises(ValueError, match="divisible by 32, but got 16 and 16"):
        RAUNet().eval()(torch.zeros(1, 1, 16, 16))
