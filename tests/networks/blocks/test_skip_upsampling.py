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
from torch import nn

from monai_kd.networks.blocks import SkipUpsampling


def test_skip_comes_first() -> None:
    block = SkipUpsampling(nn.ConvTranspose2d(4, 2, kernel_size=2, stride=2), nn.Conv2d(3 + 2, 5, kernel_size=1))
    x, skip = torch.randn(2, 4, 3, 5), torch.randn(2, 3, 6, 10)
    weight = block.convs.weight
    expected = nn.functional.conv2d(skip, weight[:, :3], block.convs.bias)
    expected = expected + nn.functional.conv2d(block.upsample(x), weight[:, 3:])
    torch.testing.assert_close(block(x, skip), expected)
