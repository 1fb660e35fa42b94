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

"""ENet's three residual blocks against the same arithmetic written with torch.nn.functional."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from monai_kd.networks.blocks import ENetBottleneck, ENetDownsampling, ENetUpsampling


def _filled(block: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.3), nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5), nn.init.normal_(module.bias, std=0.3)
        if isinstance(module, nn.PReLU):
            nn.init.uniform_(module.weight, 0.1, 0.6)
    return block.eval()


class _Tape:
    """The parameters of a block in their order, taken one by one; every one must be used."""

    def __init__(self, block: nn.Module) -> None:
        self.state = [tensor for name, tensor in block.state_dict().items() if not name.endswith("num_batches_tracked")]

    def take(self) -> torch.Tensor:
        return self.state.pop(0)

    def norm(self, x: torch.Tensor) -> torch.Tensor:
        weight, bias, mean, var = (self.take() for _ in range(4))
        return F.batch_norm(x, mean, var, weight, bias)

    def act(self, x: torch.Tensor) -> torch.Tensor:
        return torch.where(x >= 0, x, self.take() * x)


@pytest.mark.parametrize("dilation", [1, 2, 4])
def test_bottleneck(dilation: int) -> None:
    block, x = _filled(ENetBottleneck(16, dilation=dilation)), torch.randn(2, 16, 9, 8)
    tape = _Tape(block)
    y = tape.act(tape.norm(F.conv2d(x, tape.take())))
    y = tape.act(tape.norm(F.conv2d(y, tape.take(), padding=dilation, dilation=dilation)))
    y = tape.norm(F.conv2d(y, tape.take()))
    torch.testing.assert_close(block(x), tape.act(x + y))
    assert tape.state == []


def test_asymmetric_bottleneck() -> None:
    block, x = _filled(ENetBottleneck(16, asymmetric=True)), torch.randn(2, 16, 9, 8)
    tape = _Tape(block)
    y = tape.act(tape.norm(F.conv2d(x, tape.take())))
    y = F.conv2d(y, tape.take(), padding=(2, 0))
    y = tape.act(tape.norm(F.conv2d(y, tape.take(), padding=(0, 2))))
    y = tape.norm(F.conv2d(y, tape.take()))
    torch.testing.assert_close(block(x), tape.act(x + y))
    assert tape.state == []


def test_downsampling() -> None:
    block, x = _filled(ENetDownsampling(8, 16)), torch.randn(2, 8, 6, 8)
    tape = _Tape(block)
    pooled, expected_position = F.max_pool2d(x, 2, return_indices=True)
    short = tape.norm(F.conv2d(pooled, tape.take()))
    y = tape.act(tape.norm(F.conv2d(x, tape.take())))
    y = tape.act(tape.norm(F.conv2d(y, tape.take(), stride=2)))
    y = tape.norm(F.conv2d(y, tape.take()))
    feature, position = block(x)
    torch.testing.assert_close(feature, tape.act(short + y))
    assert torch.equal(position, expected_position)
    assert tape.state == []


def test_upsampling() -> None:
    block, x = _filled(ENetUpsampling(16, 8)), torch.randn(2, 16, 3, 4)
    _, position = F.max_pool2d(torch.rand(2, 8, 6, 8), 2, return_indices=True)
    tape = _Tape(block)
    short = F.max_unpool2d(tape.norm(F.conv2d(x, tape.take())), position, 2)
    y = tape.act(tape.norm(F.conv2d(x, tape.take())))
    y = tape.act(tape.norm(F.conv_transpose2d(y, tape.take(), stride=2)))
    y = tape.norm(F.conv2d(y, tape.take()))
    torch.testing.assert_close(block(x, position), tape.act(short + y))
    assert tape.state == []


def test_only_whole_channels_are_dropped() -> None:
    torch.manual_seed(0)
    block = ENetBottleneck(256).train()
    dropped = block.branch(torch.randn(1, 256, 4, 4))[0] == 0
    per_channel = dropped.flatten(1).float().mean(1)
    assert set(per_channel.tolist()) == {0.0, 1.0}
    assert per_channel.mean().item() == pytest.approx(0.1, abs=0.06)


@pytest.mark.slow
def test_compile_with_inductor() -> None:
    """The scatter of the unpooling and the positions it takes, as compiled code."""
    torch.compiler.reset()
    down, up, x = _filled(ENetDownsampling(8, 16)), _filled(ENetUpsampling(16, 8)), torch.randn(2, 8, 8, 12)
    compiled = torch.compile(lambda x: up(*down(x)), fullgraph=True)
    torch.testing.assert_close(compiled(x), up(*down(x)))
