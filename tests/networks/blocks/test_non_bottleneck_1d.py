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

from monai_kd.networks.blocks import NonBottleneck1D


def _norm(x: torch.Tensor, norm: nn.Module) -> torch.Tensor:
    return F.batch_norm(x, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=1e-3)


@pytest.mark.parametrize("dilation", [1, 2, 3])
def test_two_pairs_and_the_identity(dilation: int) -> None:
    torch.manual_seed(0)
    block, x = NonBottleneck1D(6, dilation, dropout=0.3), torch.randn(2, 6, 9, 8)
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.3), nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5), nn.init.normal_(module.bias, std=0.3)
    block.eval().requires_grad_(False)
    first, second, third, fourth = ((unit.conv.weight, unit.conv.bias) for unit in block.branch)
    y = F.relu(F.conv2d(x, *first, padding=(1, 0)))
    y = F.relu(_norm(F.conv2d(y, *second, padding=(0, 1)), block.branch[1].adn.N))
    y = F.relu(F.conv2d(y, *third, padding=(dilation, 0), dilation=(dilation, 1)))
    y = _norm(F.conv2d(y, *fourth, padding=(0, dilation), dilation=(1, dilation)), block.branch[3].adn.N)
    torch.testing.assert_close(block(x), F.relu(x + y))


def test_only_whole_channels_are_dropped() -> None:
    torch.manual_seed(0)
    block = NonBottleneck1D(256, dropout=0.3).train()
    dropped = (block.branch(torch.randn(1, 256, 4, 4))[0] == 0).flatten(1).float().mean(1)
    assert set(dropped.tolist()) == {0.0, 1.0}
    assert dropped.mean().item() == pytest.approx(0.3, abs=0.1)


def test_without_dropout_training_does_not_draw() -> None:
    block, x = NonBottleneck1D(4).train(), torch.randn(2, 4, 6, 6)
    assert torch.equal(block(x), block(x))
