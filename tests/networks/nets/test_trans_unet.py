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

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.losses import DiceCELoss
from scipy import ndimage
from torch import nn
from torch.nn import functional as F

from monai_kd.networks import FeatureCapture, Teacher
from monai_kd.networks.nets import TransUNet
from monai_kd.networks.nets.trans_unet import rename_published
from monai_kd.report import network_cost
from tests.networks.published_hybrid_vit import B16, TINY, PublishedHybridViT, filled, hybrid_vit_shapes

POSITION = "Transformer/posembed_input/pos_embedding"


@pytest.fixture(scope="module")
def published() -> dict[str, np.ndarray]:
    return filled(hybrid_vit_shapes(**TINY, grid=4))


@pytest.fixture
def path(published: dict[str, np.ndarray], tmp_path: Path) -> Path:
    np.savez(tmp_path / "R50+ViT-B_16.npz", **published)
    return tmp_path / "R50+ViT-B_16.npz"


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """Tiny, in eval mode, with normalisation that does something; nobody may change it."""
    torch.manual_seed(0)
    network = TransUNet("tiny").eval().requires_grad_(False)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1), nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network


def test_parameters_of_the_released_code() -> None:
    """methods.md B: 105,276,066 for 2 classes at 224. Position embeddings are all that depends on the size."""
    for in_channels, img_size, more in ((1, 224, 0), (3, 224, 0), (3, 512, (32**2 - 14**2) * 768)):
        with torch.device("meta"):
            network = TransUNet(in_channels=in_channels, img_size=img_size)
        assert sum(parameter.numel() for parameter in network.parameters()) == 105_276_066 + more


@pytest.mark.parametrize(
    ("backbone", "parameters", "flops"), [("r50_vit_b16", 105_276_066, 58.35e9), ("tiny", 2_975_618, 3.127e9)]
)
def test_cost_of_an_image(backbone: str, parameters: int, flops: float) -> None:
    """methods.md B: 29.2 G multiply-accumulates by the released code."""
    with torch.device("meta"):
        network = TransUNet(backbone)
    cost = network_cost(network, (1, 3, 224, 224), runs=1, warm_up=0)
    assert cost.flops == pytest.approx(flops, rel=1e-3)
    assert cost.used_parameters == cost.parameters == parameters


@pytest.mark.parametrize("size", [(64, 64), (48, 96)])
def test_published_weights_give_the_published_network(
    published: dict[str, np.ndarray], path: Path, size: tuple[int, int]
) -> None:
    network = TransUNet("tiny", img_size=64, encoder_weights=path).double().eval()
    reference = PublishedHybridViT(published, TINY["units"], TINY["layers"])
    image = torch.rand(2, 3, *size, dtype=torch.float64)
    grid = (size[0] // 16, size[1] // 16)
    places = published[POSITION][0, 1:].reshape(4, 4, -1).astype(np.float64)
    position = ndimage.zoom(places, (grid[0] / 4, grid[1] / 4, 1), order=1)  # as TransUNet resizes them
    with torch.no_grad():
        maps, expected = network.resnet(image), reference.resnet(image)
        for ours, theirs in zip(maps, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
        theirs = reference.vit(expected[3], torch.from_numpy(position).flatten(0, 1))
        torch.testing.assert_close(network.vit(maps[3]), theirs, rtol=1e-9, atol=1e-9)


def test_position_embeddings_are_resized_when_they_are_loaded(published: dict[str, np.ndarray], path: Path) -> None:
    position = TransUNet("tiny", img_size=112, encoder_weights=path).vit.position[0]
    places = published[POSITION][0, 1:].reshape(4, 4, -1)
    expected = ndimage.zoom(places, (7 / 4, 7 / 4, 1), order=1)
    torch.testing.assert_close(position, torch.from_numpy(expected).permute(2, 0, 1))


def test_every_published_name_is_known() -> None:
    """R50+ViT-B_16.npz without its class token and classifier fills ResNet and transformer, and nothing else."""
    shapes = {name: shape for name, shape in hybrid_vit_shapes(**B16).items() if not name.startswith(("cls", "head"))}
    shapes = {name: shape for name, shape in shapes.items() if not name.startswith("pre_logits")}
    with torch.device("meta"):
        renamed = rename_published({name: torch.empty(shape) for name, shape in shapes.items()}, grid=14)
        network = TransUNet()
    own = {k: v.shape for k, v in network.state_dict().items() if k.startswith(("resnet.", "vit."))}
    assert {name: value.shape for name, value in renamed.items()} == own


def test_published_weights_fill_the_encoder_alone(path: Path) -> None:
    torch.manual_seed(1)
    loaded = TransUNet("tiny", in_channels=1, encoder_weights=str(path)).state_dict()
    torch.manual_seed(1)
    random = TransUNet("tiny", in_channels=1).state_dict()
    changed = {name for name in loaded if not torch.equal(loaded[name], random[name])}
    assert changed == {name for name in loaded if name.startswith(("resnet.", "vit."))}


def _without(name: str):
    return lambda weights: {key: value for key, value in weights.items() if key != name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_without("block2/unit1/conv2/kernel"), r"resnet\.stage2\.0\.conv2\.weight missing"),
        (_without("Transformer/encoderblock_1/LayerNorm_2/bias"), r"vit\.layers\.1\.norm2\.bias missing"),
        (_without("Transformer/encoderblock_1/MultiHeadDotProductAttention_1/key/bias"), r"vit\.layers\.1\.qkv\.bias"),
        (_without(POSITION), r"vit\.position missing"),
        (lambda weights: weights | {"block4/unit1/gn1/bias": np.zeros(1)}, r"resnet\.stage4\.0\.norm1\.bias unexpect"),
        (lambda weights: weights | {"block1/unit2/gn1/bias": np.zeros(1)}, r"resnet\.stage1\.1\.norm1\.bias unexpect"),
        (lambda weights: weights | {"decoder/kernel": np.zeros(1)}, "decoder/kernel unexpected"),
        (
            lambda weights: weights | {"conv_root/kernel": np.zeros((7, 7, 4, 32))},
            r"mismatch for resnet\.stem\.0\.weig",
        ),
        (lambda weights: weights | {POSITION: np.zeros((1, 12, 192))}, r"size mismatch for vit\.position"),
        (lambda weights: weights | {POSITION: np.zeros(192)}, r"size mismatch for vit\.position"),
        (lambda weights: filled(hybrid_vit_shapes(**TINY | {"hidden": 96}, grid=4)), "size mismatch for vit"),
        (lambda weights: {}, r"resnet\.stage1\.0\.conv1\.weight missing.* \.\.\.$"),
    ],
    ids=["conv", "norm", "key", "position", "stage", "unit", "unknown", "input", "grid", "flat", "hidden", "empty"],
)
def test_file_of_another_network(published: dict[str, np.ndarray], tmp_path: Path, change, message: str) -> None:
    np.savez(tmp_path / "other.npz", **change(published))
    start = r"(?s)`encoder_weights` must hold ResNet and ViT of TransUNet tiny, but .*other\.npz differs.*"
    with pytest.raises(ValueError, match=start + message):
        TransUNet("tiny", encoder_weights=tmp_path / "other.npz")


def test_what_is_no_archive(tmp_path: Path, network: nn.Module) -> None:
    np.savez(tmp_path / "code.npz", cls=np.zeros(1), conv_root=np.array([{}], dtype=object))  # needs pickle
    np.save(tmp_path / "array.npy", np.zeros(3))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "code.npz").read_bytes()[:100])
    (tmp_path / "text.npz").write_text("<html>")
    torch.save(network.head.state_dict(), tmp_path / "decoder.pth")
    for name in ("code.npz", "array.npy", "cut.npz", "text.npz", "decoder.pth"):
        with pytest.raises(ValueError, match=f"`encoder_weights` must be an archive of NumPy arrays .*{name}"):
            TransUNet("tiny", encoder_weights=tmp_path / name)
    with pytest.raises(FileNotFoundError, match=r"`encoder_weights` must be a local file .*but got '.*nowhere\.npz'"):
        TransUNet("tiny", encoder_weights=tmp_path / "nowhere.npz")
    with pytest.raises(ValueError, match="`encoder_weights` needs `in_channels` 1 or 3, but got 4; pass None"):
        TransUNet("tiny", in_channels=4, encoder_weights=tmp_path / "code.npz")


def test_trains_from_scratch_aloud(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="monai_kd"):
        TransUNet("tiny", encoder_weights=path).train()
        Teacher(TransUNet("tiny"))(torch.zeros(1, 3, 32, 32))  # as teacher or assistant of a student
        network = TransUNet("tiny").eval()
        assert caplog.messages == []
        for _ in range(2):
            network.train()
    assert caplog.messages == [
        "TransUNet tiny trains from scratch unless a checkpoint was loaded: no weights are given"
    ]


def _two(x: torch.Tensor, convs: nn.Module) -> torch.Tensor:
    for conv in (convs.conv_0, convs.conv_1):
        x, norm = F.conv2d(x, conv.conv.weight, padding=1), conv.adn.N
        x = F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias).clamp(min=0)
    return x


def test_value_of_the_decoder(network: nn.Module) -> None:
    """Corners stay corners; the skip comes first; the last step has none."""
    image = torch.rand(2, 3, 64, 96)
    feature0, feature1, feature2, feature3 = network.resnet(image)
    x, norm = F.conv2d(network.vit(feature3), network.reduce.conv.weight, padding=1), network.reduce.adn.N
    x = F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias).clamp(min=0)
    for up, skip in ((network.up1, feature2), (network.up2, feature1), (network.up3, feature0)):
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
        x = _two(torch.cat([x, skip], dim=1), up.convs)
    x = _two(F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True), network.up4[1])
    expected = F.conv2d(x, network.head.weight, network.head.bias, padding=1)
    torch.testing.assert_close(network(image), expected)


def test_documented_layers() -> None:
    with torch.device("meta"):
        network, image = TransUNet().eval(), torch.zeros(1, 3, 224, 224)
    layers = ["resnet.stem", "resnet.stage1", "resnet.stage2", "resnet.stage3", "vit", "up1", "up2", "up3", "up4"]
    with FeatureCapture(network, layers) as capture:
        network(image)
        shapes = [tuple(capture[layer].shape[1:]) for layer in layers]
    assert shapes == [
        (64, 112, 112),
        (256, 55, 55),
        (512, 28, 28),
        (1024, 14, 14),
        (768, 14, 14),
        (256, 28, 28),
        (128, 56, 56),
        (64, 112, 112),
        (16, 224, 224),
    ]


def test_learns_one_image() -> None:
    network = TransUNet("tiny", img_size=64).train()
    label = torch.zeros(2, 1, 64, 64)
    label[:, :, 16:48, 8:40] = 1
    image = label.expand(-1, 3, -1, -1) + 0.1 * torch.randn(2, 3, 64, 64)
    loss, optimizer = DiceCELoss(softmax=True, to_onehot_y=True), torch.optim.AdamW(network.parameters(), lr=1e-3)
    values = []
    for _ in range(8):
        optimizer.zero_grad()
        value = loss(network(image), label)
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.7 * values[0]


def test_smallest_image(network: nn.Module) -> None:
    assert network(torch.rand(1, 3, 16, 32)).shape == (1, 2, 16, 32)
    for module in (network, torch.jit.script(network)):
        with pytest.raises((ValueError, torch.jit.Error), match="`image` must be larger than 16 x 16, but got"):
            module(torch.rand(2, 3, 16, 16))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backbone": "b16"}, "`backbone` must be one of 'r50_vit_b16', 'tiny', but got 'b16'"),
        ({"img_size": 100}, "`img_size` must be a multiple of 16, but got 100"),
        ({"img_size": 0}, "`img_size` must be a multiple of 16, but got 0"),
    ],
)
def test_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TransUNet(**arguments)
