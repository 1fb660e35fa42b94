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

"""Weights with torchvision's names, and the same arithmetic written with torch.nn.functional on the names."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from monai_kd.networks.blocks import MobileNetV2Encoder

# Table 2 of the paper: expansion, channels, blocks; last, the stride of the first block in EMKD's code
TABLE = [(1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 1), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)]

Weights = dict[str, torch.Tensor]


def _conv_norm(weights: Weights, conv: str, norm: str, shape: tuple[int, ...], generator: torch.Generator) -> None:
    fan_in = shape[1] * shape[2] * shape[3]
    weights[f"{conv}.weight"] = torch.randn(shape, generator=generator) * (2 / fan_in) ** 0.5
    for name in ("weight", "running_var"):
        weights[f"{norm}.{name}"] = 0.5 + torch.rand(shape[0], generator=generator)
    for name in ("bias", "running_mean"):
        weights[f"{norm}.{name}"] = 0.1 * torch.randn(shape[0], generator=generator)
    weights[f"{norm}.num_batches_tracked"] = torch.tensor(7)


@pytest.fixture(scope="module")
def weights() -> Weights:
    """The 314 names and shapes that torchvision 0.28 saves of its ``mobilenet_v2``."""
    generator, made, channels, number = torch.Generator().manual_seed(0), {}, 32, 1
    _conv_norm(made, "features.0.0", "features.0.1", (32, 3, 3, 3), generator)
    for expansion, out_channels, blocks, _ in TABLE:
        for _ in range(blocks):
            at, inside, step = f"features.{number}.conv", expansion * channels, 0
            if expansion != 1:
                _conv_norm(made, f"{at}.0.0", f"{at}.0.1", (inside, channels, 1, 1), generator)
                step = 1
            _conv_norm(made, f"{at}.{step}.0", f"{at}.{step}.1", (inside, 1, 3, 3), generator)
            _conv_norm(made, f"{at}.{step + 1}", f"{at}.{step + 2}", (out_channels, inside, 1, 1), generator)
            channels, number = out_channels, number + 1
    _conv_norm(made, "features.18.0", "features.18.1", (1280, 320, 1, 1), generator)
    made["classifier.1.weight"], made["classifier.1.bias"] = torch.zeros(1000, 1280), torch.zeros(1000)
    assert len(made) == 314
    return made


def _reference(weights: Weights, x: torch.Tensor) -> torch.Tensor:
    def layer(x: torch.Tensor, conv: str, norm: str, **options: int) -> torch.Tensor:
        weight, bias, mean, var = (weights[f"{norm}.{n}"] for n in ("weight", "bias", "running_mean", "running_var"))
        return F.batch_norm(F.conv2d(x, weights[f"{conv}.weight"], **options), mean, var, weight, bias)

    x, number = layer(x, "features.0.0", "features.0.1", stride=2, padding=1).clamp(0, 6), 1
    for expansion, _, blocks, first_stride in TABLE:
        for index in range(blocks):
            at, y, stride = f"features.{number}.conv", x, first_stride if index == 0 else 1
            step = int(expansion != 1)
            if step:
                y = layer(y, f"{at}.0.0", f"{at}.0.1").clamp(0, 6)
            y = layer(y, f"{at}.{step}.0", f"{at}.{step}.1", stride=stride, padding=1, groups=y.shape[1]).clamp(0, 6)
            y = layer(y, f"{at}.{step + 1}", f"{at}.{step + 2}")
            x, number = (x + y if index > 0 else y), number + 1
    return layer(x, "features.18.0", "features.18.1").clamp(0, 6)


def test_torchvisions_weights_make_its_network(weights: Weights, tmp_path: Path) -> None:
    torch.save(weights, tmp_path / "mobilenet_v2.pth")
    encoder = MobileNetV2Encoder().eval().requires_grad_(False)
    encoder.load_imagenet(tmp_path / "mobilenet_v2.pth")
    image = torch.rand(2, 3, 32, 40, generator=torch.Generator().manual_seed(0))
    expected = _reference(weights, image)
    assert expected.shape == (2, 1280, 4, 5)
    assert expected.std() > 0.1
    torch.testing.assert_close(encoder(image), expected, rtol=1e-3, atol=1e-4)


def test_starts_from_he_by_fan_out() -> None:
    torch.manual_seed(0)
    encoder = MobileNetV2Encoder()
    assert encoder.last[0].weight.std().item() == pytest.approx((2 / 1280) ** 0.5, rel=0.05)
    assert encoder.stem[0].weight.std().item() == pytest.approx((2 / (32 * 9)) ** 0.5, rel=0.1)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"`encoder_weights` must be a local file .*nowhere\.pth.*pass None"):
        MobileNetV2Encoder().load_imagenet(tmp_path / "nowhere.pth")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features.3.conv.2.weight": None}, "Missing key.*blocks.2.conv.2.weight"),
        ({"features.19.0.weight": torch.zeros(1)}, "Unexpected key.*blocks.18.0.weight"),
        ({"features.0.0.weight": torch.zeros(32, 1, 3, 3)}, "size mismatch for stem.0.weight"),
    ],
    ids=["missing", "unexpected", "shape"],
)
def test_file_of_another_network(weights: Weights, tmp_path: Path, change: Weights, message: str) -> None:
    changed = {name: value for name, value in {**weights, **change}.items() if value is not None}
    torch.save(changed, tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"(?s)`encoder_weights` must hold torchvision's mobilenet_v2.*" + message):
        MobileNetV2Encoder().load_imagenet(tmp_path / "other.pth")
