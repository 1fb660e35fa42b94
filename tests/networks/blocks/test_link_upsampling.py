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

import torch
from torch.nn import functional as F

from monai_kd.networks.blocks import LinkUpsampling


def test_value() -> None:
    torch.manual_seed(0)
    block = LinkUpsampling(16, 8).eval()
    x = torch.randn(2, 16, 3, 5)
    y = x
    for index, conv in enumerate((F.conv2d, F.conv_transpose2d, F.conv2d)):
        layer, norm = block[index].conv, block[index].adn.N
        torch.nn.init.normal_(norm.running_mean, std=0.3)
        geometry = {"stride": 2, "padding": 1} if index == 1 else {}
        y = conv(y, layer.weight, layer.bias, **geometry)
        y = F.batch_norm(y, norm.running_mean, norm.running_var, norm.weight, norm.bias).clamp(min=0)
    assert y.shape == (2, 8, 6, 10)
    torch.testing.assert_close(block(x), y)
