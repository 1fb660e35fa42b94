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

import copy
from pathlib import Path

import pytest
import torch
from monai.networks.nets import resnet50
from torch import nn
from torch.nn import functional as F

from monai_kd.networks.blocks import ResNet50Encoder


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    """MONAI's ResNet-50 with torchvision's names and shapes, the classifier included."""
    torch.manual_seed(0)
    network = resnet50(
        spatial_dims=2, n_input_channels=3, num_classes=10, conv1_t_stride=2, bias_downsample=False, shortcut_type="B"
    ).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1), nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network.requires_grad_(False)


@pytest.fixture(scope="module")
def csail(resnet: nn.Module) -> dict[str, torch.Tensor]:
    """The same with CSAIL's stem: three convolutions, and 128 channels that enter the first block."""
    weights = dict(resnet.state_dict())
    for number, (of, to) in enumerate([(3, 64), (64, 64), (64, 128)], start=1):
        norm = nn.BatchNorm2d(to)
        nn.init.uniform_(norm.weight, 0.5, 1.5), nn.init.normal_(norm.bias), nn.init.normal_(norm.running_mean)
        weights[f"conv{number}.weight"] = torch.randn(to, of, 3, 3) / (9 * of) ** 0.5
        weights |= {f"bn{number}.{name}": value.clone() for name, value in norm.state_dict().items()}
    weights["layer1.0.conv1.weight"] = torch.randn(64, 128, 1, 1) / 128**0.5
    weights["layer1.0.downsample.0.weight"] = torch.randn(256, 128, 1, 1) / 128**0.5
    return weights


def saved(weights: dict[str, torch.Tensor], folder: Path) -> Path:
    torch.save(weights, folder / "resnet50.pth")
    return folder / "resnet50.pth"


def dilated(layer: nn.Module, dilation: int) -> None:
    """The stride of a stage goes; what came after it sees the map at ``dilation`` times the step."""
    for block, step in zip(layer, [dilation // 2] + [dilation] * (len(layer) - 1), strict=True):
        block.conv2.stride, block.conv2.dilation, block.conv2.padding = (1, 1), (step, step), (step, step)
    layer[0].downsample[0].stride = (1, 1)


def test_torchvision_weights_make_the_dilated_resnet50(resnet: nn.Module, tmp_path: Path) -> None:
    """Torchvision's layout, ``replace_stride_with_dilation=[False, True, True]`` by hand."""
    encoder = ResNet50Encoder(deep_stem=False).eval()
    encoder.load_imagenet(saved(resnet.state_dict(), tmp_path))
    layers = copy.deepcopy([resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4])
    dilated(layers[2], 2), dilated(layers[3], 4)
    image = torch.rand(1, 3, 64, 48)
    x = resnet.maxpool(resnet.act(resnet.bn1(resnet.conv1(image))))
    with torch.no_grad():
        for ours, layer in zip(encoder(image), layers, strict=True):
            x = layer(x)
            torch.testing.assert_close(ours, x, rtol=1e-4, atol=1e-5 * x.max().item())


def test_csail_weights_make_the_deep_stem(csail: dict[str, torch.Tensor], tmp_path: Path) -> None:
    encoder = ResNet50Encoder().eval()
    encoder.load_imagenet(saved(csail, tmp_path))
    x = image = torch.rand(1, 3, 32, 32)
    for number, stride in ((1, 2), (2, 1), (3, 1)):
        x = F.conv2d(x, csail[f"conv{number}.weight"], stride=stride, padding=1)
        norm = [csail[f"bn{number}.{name}"] for name in ("running_mean", "running_var", "weight", "bias")]
        x = F.batch_norm(x, *norm).relu()
    with torch.no_grad():
        torch.testing.assert_close(encoder.deepen(encoder.stem(image)), x)
    assert torch.equal(encoder.stage4[2].conv3.weight, csail["layer4.2.conv3.weight"])
    assert torch.equal(encoder.stage1[0].downsample[0].weight, csail["layer1.0.downsample.0.weight"])


def test_old_files_without_batch_counts(csail: dict[str, torch.Tensor], tmp_path: Path) -> None:
    encoder = ResNet50Encoder()
    old = {name: value for name, value in csail.items() if not name.endswith("num_batches_tracked")}
    encoder.load_imagenet(saved(old, tmp_path))
    assert torch.equal(encoder.stem[0].weight, csail["conv1.weight"])


@pytest.mark.parametrize(
    ("deep_stem", "message"),
    [
        (True, r"CSAIL's .*three convolutions.*`deep_stem=False`.*Missing key.*deepen"),
        (False, r"torchvision's resnet50, with one convolution.*Unexpected key.*deepen"),
    ],
)
def test_file_of_the_other_stem(
    resnet: nn.Module, csail: dict[str, torch.Tensor], tmp_path: Path, deep_stem: bool, message: str
) -> None:
    other = resnet.state_dict() if deep_stem else csail
    with pytest.raises(ValueError, match=r"(?s)`encoder_weights` must hold .*" + message):
        ResNet50Encoder(deep_stem=deep_stem).load_imagenet(saved(other, tmp_path))


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"`encoder_weights` must be a local file .*nowhere\.pth.*pass None"):
        ResNet50Encoder().load_imagenet(tmp_path / "nowhere.pth")


@pytest.mark.parametrize(("deep_stem", "parameters"), [(True, 23_631_808), (False, 23_508_032)])
def test_parameters(deep_stem: bool, parameters: int) -> None:
    """Torchvision's has 25,557,032, of which 2,049,000 are its classifier."""
    with torch.device("meta"):
        encoder = ResNet50Encoder(deep_stem=deep_stem)
    assert sum(parameter.numel() for parameter in encoder.parameters()) == parameters


def test_initialisation_of_he() -> None:
    torch.manual_seed(0)
    conv = ResNet50Encoder().stage4[1].conv2
    assert conv.weight.std().item() == pytest.approx((2 / (512 * 9)) ** 0.5, rel=0.01)
