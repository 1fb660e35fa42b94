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

from monai_kd.networks.blocks import SeparableConvolution


def test_value_is_that_of_a_dense_kernel_of_low_rank() -> None:
    block = SeparableConvolution(3, 4, kernel_size=(5, 1)).double().eval()
    x = torch.randn(2, 3, 7, 6, dtype=torch.float64)
    dense = block[1].weight * block[0].weight.transpose(0, 1)  # (out, in, 5, 1)
    expected = F.conv2d(x, dense, padding=(2, 0)) / (1 + 1e-5) ** 0.5
    torch.testing.assert_close(block(x), expected.clamp(min=0))


def test_rows_do_not_mix_along_a_row_kernel() -> None:
    block = SeparableConvolution(3, 4, kernel_size=(1, 5)).double().eval()
    x = torch.randn(2, 3, 7, 6, dtype=torch.float64)
    torch.testing.assert_close(block(x), torch.cat([block(row) for row in x.split(1, dim=2)], dim=2))


def test_parameters() -> None:
    block = SeparableConvolution(6, 8, kernel_size=(1, 5))
    assert sum(parameter.numel() for parameter in block.parameters()) == 6 * 5 + 6 * 8 + 2 * 8
