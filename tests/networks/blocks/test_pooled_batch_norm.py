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

from monai_kd.networks.blocks import PooledBatchNorm


def _pair() -> tuple[PooledBatchNorm, nn.BatchNorm2d]:
    torch.manual_seed(0)
    ours, theirs = PooledBatchNorm(4), nn.BatchNorm2d(4)
    for norm in (ours, theirs):
        nn.init.constant_(norm.weight, 1.5), nn.init.constant_(norm.bias, 0.3)
        nn.init.constant_(norm.running_mean, 0.2), nn.init.constant_(norm.running_var, 0.7)
    return ours, theirs


@pytest.mark.parametrize("training", [True, False])
def test_larger_batches_as_torch(training: bool) -> None:
    ours, theirs = (norm.train(training) for norm in _pair())
    x = torch.randn(3, 4, 1, 1)
    assert torch.equal(ours(x), theirs(x))
    assert torch.equal(ours.running_mean, theirs.running_mean)
    assert torch.equal(ours.running_var, theirs.running_var)


def test_batch_of_one_uses_running_statistics() -> None:
    ours, theirs = _pair()
    x = torch.randn(1, 4, 1, 1)
    assert torch.equal(ours.train()(x), theirs.eval()(x))
    assert torch.equal(ours.running_mean, theirs.running_mean)
    with pytest.raises(ValueError, match="more than 1 value per channel"):  # why this class exists
        theirs.train()(x)


def test_is_converted_for_many_devices() -> None:
    assert isinstance(nn.SyncBatchNorm.convert_sync_batchnorm(PooledBatchNorm(4)), nn.SyncBatchNorm)
