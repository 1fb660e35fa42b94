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

from monai_kd.networks.blocks import XceptionEncoder
from monai_kd.networks.blocks.xception_encoder import _Block, _separable


@pytest.fixture(scope="module")
def encoder() -> XceptionEncoder:
    """Shapes without values."""
    with torch.device("meta"):
        return XceptionEncoder()


def test_separable_convolution_is_a_dense_one_of_rank_one() -> None:
    conv = _separable(3, 4, stride=2, dilation=2).double().eval()
    x = torch.randn(2, 3, 9, 8, dtype=torch.float64)
    dense = conv[2].weight * conv[0].weight.transpose(0, 1) / (1 + 1e-5) ** 0.5  # (out, in, 3, 3)
    torch.testing.assert_close(conv(x), F.conv2d(x, dense, stride=2, padding=2, dilation=2))


def test_block_by_hand() -> None:
    block = _Block((3, 4, 4, 5), stride=2).double().eval()
    x = torch.randn(2, 3, 9, 8, dtype=torch.float64)
    first, second, third = (layer for layer in block.branch if isinstance(layer, nn.Sequential))
    norm = (1 + 1e-5) ** -0.5
    branch = third((second((first(x.relu()) * norm).relu()) * norm).relu()) * norm
    torch.testing.assert_close(block(x), branch + F.conv2d(x.relu(), block.skip[0].weight, stride=2) * norm)


def test_identity_starts_after_the_first_relu() -> None:
    block = _Block((3, 3, 3, 3)).eval()
    nn.init.zeros_(block.branch[-1].weight)
    x = torch.randn(2, 3, 6, 6)
    kept = x.clone()
    assert torch.equal(block(x), x.relu())
    assert torch.equal(x, kept)


def test_depth(encoder: XceptionEncoder) -> None:
    """Xception-65: two convolutions, three in each of 20 blocks, three at the end; parameters of the released code."""
    depthwise = [m for m in encoder.modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
    assert len(depthwise) == 3 * 3 + 16 * 3 + 3 + 3
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 37_864_688


def test_strides_and_dilations(encoder: XceptionEncoder) -> None:
    def of(part: nn.Module) -> list[tuple[int, int]]:
        return [(m.stride[0], m.dilation[0]) for m in part.modules() if isinstance(m, nn.Conv2d) and m.groups > 1]

    assert of(encoder.entry1) == of(encoder.entry2) == [(1, 1), (1, 1), (2, 1)]
    assert of(encoder.entry3) == [(1, 1)] * 3
    assert of(encoder.middle) == [(1, 2)] * 48
    assert of(encoder.exit) == [(1, 2)] * 3 + [(1, 4)] * 3


def test_which_convolutions_are_not_normalised(encoder: XceptionEncoder) -> None:
    blocks = {name: module for name, module in encoder.named_modules() if isinstance(module, _Block)}
    layers = {name: [type(layer).__name__ for layer in block.branch] for name, block in blocks.items()}
    plain = ["Sequential", "BatchNorm2d", "ReLU"] * 2 + ["Sequential", "BatchNorm2d"]
    assert layers.pop("exit.0") == [
        "Sequential",
        "BatchNorm2d",
        "ReLU",
        "Sequential",
        "ReLU",
        "Sequential",
        "BatchNorm2d",
    ]
    assert list(layers.values()) == [plain] * 19
    assert [name for name, block in blocks.items() if not isinstance(block.start, nn.ReLU)] == ["entry1.0", "entry2"]


def test_sizes_are_rounded_up(encoder: XceptionEncoder) -> None:
    feature1, feature2 = encoder(torch.zeros(1, 1, 33, 50, device="meta"))
    assert (feature1.shape, feature2.shape) == ((1, 128, 9, 13), (1, 2048, 5, 7))
