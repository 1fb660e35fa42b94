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

from monai_kd.networks.blocks import InvertedResidual


class _Tape:
    """The parameters of a block in their order, taken one by one; every one must be used."""

    def __init__(self, block: nn.Module) -> None:
        self.state = [tensor for name, tensor in block.state_dict().items() if not name.endswith("num_batches_tracked")]

    def conv_norm(self, x: torch.Tensor, **options: int) -> torch.Tensor:
        x = F.conv2d(x, self.state.pop(0), **options)
        weight, bias, mean, var = (self.state.pop(0) for _ in range(4))
        return F.batch_norm(x, mean, var, weight, bias)


def _filled(block: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.3), nn.init.uniform_(module.running_var, 0.01, 0.05)
            nn.init.uniform_(module.weight, 0.5, 1.5), nn.init.normal_(module.bias, std=0.3)
    return block.eval().requires_grad_(False)


@pytest.mark.parametrize(
    ("in_channels", "out_channels", "stride", "expansion"), [(4, 4, 1, 6), (4, 4, 2, 6), (4, 8, 1, 6), (6, 6, 1, 1)]
)
def test_expand_convolve_project(in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
    block = _filled(InvertedResidual(in_channels, out_channels, stride, expansion))
    x, inside = torch.randn(2, in_channels, 9, 8), expansion * in_channels
    tape, y = _Tape(block), x
    if expansion != 1:
        y = tape.conv_norm(y)
        assert y.max() > 6  # where ReLU6 is no ReLU
        y = y.clamp(0, 6)
    y = tape.conv_norm(y, stride=stride, padding=1, groups=inside).clamp(0, 6)
    y = tape.conv_norm(y)
    identity = x if (stride, in_channels) == (1, out_channels) else 0
    torch.testing.assert_close(block(x), identity + y, rtol=1e-4, atol=1e-4)
    assert tape.state == []
