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

from collections import OrderedDict

import pytest
import torch
from torch import nn

from monai_kd.report import layer_table


class Net(nn.Module):
    """Its layers are declared in another order than they run, one runs twice and one never."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(4, 2, 1)
        self.body = nn.Sequential(OrderedDict(first=nn.Conv2d(1, 4, 3), second=nn.ReLU()))
        self.idle = nn.Conv2d(1, 1, 1)
        self.split = Split()

    def forward(self, image):
        return self.split(self.head(self.body(image)))[0]


class Split(nn.Module):
    def forward(self, image):
        return image[:, :1], {"rest": image[:, 1:]}


def test_rows_come_as_layers_run():
    assert layer_table(Net(), (2, 1, 8, 8)).rows == [
        ["body.first", "Conv2d", "2x4x6x6", 40],
        ["body.second", "ReLU", "2x4x6x6", 0],
        ["body", "Sequential", "2x4x6x6", 40],
        ["head", "Conv2d", "2x2x6x6", 10],
        ["split", "Split", "2x1x6x6, 2x1x6x6", 0],
        ["idle", "Conv2d", "not run", 2],
    ]


def test_depth_leaves_out_inner_layers():
    assert [row[0] for row in layer_table(Net(), (1, 1, 8, 8), depth=1).rows] == ["body", "head", "split", "idle"]


def test_no_hook_stays_behind():
    network = Net().train()
    layer_table(network, (1, 1, 8, 8))
    with pytest.raises(ValueError, match="`input_shape` must suit Net"):
        layer_table(network, (1, 3, 8, 8))
    assert not any(module._forward_hooks for module in network.modules())
    assert network.training
    assert network(torch.ones(1, 1, 8, 8)).requires_grad


def test_depth_below_one_is_refused():
    with pytest.raises(ValueError, match="`depth` must be at least 1 or None, but got 0"):
        layer_table(Net(), (1, 1, 8, 8), depth=0)
