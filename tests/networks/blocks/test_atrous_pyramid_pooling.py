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
from torch.nn import functional as F

from monai_kd.networks.blocks import AtrousPyramidPooling


def make() -> AtrousPyramidPooling:
    """In double precision and eval, with normalisation that does something."""
    torch.manual_seed(0)
    block = AtrousPyramidPooling(3, 2, dilations=(2, 4)).double().eval()
    for module in block.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean), nn.init.uniform_(module.running_var), nn.init.normal_(module.bias)
    return block.requires_grad_(False)


def test_value() -> None:
    block, feature = make(), torch.randn(2, 3, 7, 9, dtype=torch.float64)
    convs = [module for module in block.modules() if isinstance(module, nn.Conv2d)]
    norms = [module for module in block.modules() if isinstance(module, nn.BatchNorm2d)]

    def unit(x: torch.Tensor, i: int, dilation: int = 0) -> torch.Tensor:
        x = F.conv2d(x, convs[i].weight, padding=dilation, dilation=max(dilation, 1))
        return F.batch_norm(x, norms[i].running_mean, norms[i].running_var, norms[i].weight, norms[i].bias).relu()

    whole = unit(feature.mean((2, 3), keepdim=True), 3).expand(-1, -1, 7, 9)
    joined = torch.cat([unit(feature, 0), unit(feature, 1, 2), unit(feature, 2, 4), whole], dim=1)
    assert len(convs) == 5
    torch.testing.assert_close(block(feature), unit(joined, 4))


def test_views_of_one_pixel() -> None:
    """A dilated convolution reads the pixel itself and the eight at its distance."""
    block, feature = make(), torch.zeros(1, 3, 11, 11, dtype=torch.float64)
    spot = feature.clone()
    spot[:, :, 5, 5] = 1.0
    for branch, step in zip(block.branches[1:], (2, 4), strict=True):
        reached = (branch.conv(spot) != branch.conv(feature)).any(1)[0].nonzero()
        assert {tuple(place) for place in (reached - 5).tolist()} == {
            (i, j) for i in (-step, 0, step) for j in (-step, 0, step)
        }


def test_dropout_in_training_only() -> None:
    block, feature = make(), torch.randn(2, 3, 16, 16, dtype=torch.float64)
    assert [module.p for module in block.modules() if isinstance(module, nn.Dropout)] == [0.5]
    assert torch.equal(block(feature), block(feature))
    block.train()
    assert not torch.equal(block(feature), block(feature))


def test_batch_of_one_trains() -> None:
    block, feature = AtrousPyramidPooling(3, 2).train(), torch.randn(1, 3, 6, 6, requires_grad=True)
    block(feature).square().sum().backward()
    assert feature.grad.isfinite().all()


def test_gradient() -> None:
    feature = torch.randn(1, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(make(), (feature,))
