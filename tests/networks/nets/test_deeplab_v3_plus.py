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

from monai_kd.networks.nets import DeepLabV3Plus


@pytest.fixture(scope="module")
def network() -> DeepLabV3Plus:
    torch.manual_seed(0)
    return DeepLabV3Plus().eval().requires_grad_(False)


def test_decoder_joins_context_and_detail(network: DeepLabV3Plus) -> None:
    image = torch.rand(1, 1, 40, 51)
    shallow, deep = network.encoder(image)
    assert (shallow.shape, deep.shape) == ((1, 128, 10, 13), (1, 2048, 5, 7))
    context = F.interpolate(network.context(deep), (10, 13), mode="bilinear", align_corners=True)
    joined = torch.cat([context, network.detail(shallow)], dim=1)
    assert joined.shape[1] == 256 + 48
    expected = F.interpolate(network.decoder(joined), (40, 51), mode="bilinear", align_corners=True)
    torch.testing.assert_close(network(image), expected)


def test_single_channel_enters_as_it_is(network: DeepLabV3Plus) -> None:
    assert network.encoder.stem[0].weight.shape == (32, 1, 3, 3)


def test_dilations(network: DeepLabV3Plus) -> None:
    convs = [module for module in network.context.modules() if isinstance(module, nn.Conv2d)]
    assert [(conv.kernel_size[0], conv.dilation[0]) for conv in convs] == [
        (1, 1),
        (3, 12),
        (3, 24),
        (3, 36),
        (1, 1),
        (1, 1),
    ]


def test_dropout(network: DeepLabV3Plus) -> None:
    assert [module.p for module in network.modules() if isinstance(module, nn.Dropout)] == [0.5, 0.5, 0.1]


def test_detail_reaches_the_logits(network: DeepLabV3Plus) -> None:
    """The deep path alone cannot tell two images whose last maps agree."""
    image = torch.rand(1, 1, 32, 32)
    before = network(image)
    handle = network.detail.register_forward_hook(lambda module, inputs, output: torch.zeros_like(output))
    try:
        assert not torch.allclose(network(image), before)
    finally:
        handle.remove()
