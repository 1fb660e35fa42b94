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

from monai_kd.networks.blocks import CamouflageIdentification


def _sigmoid(x: torch.Tensor) -> torch.Tensor:
    return 1 / (1 + (-x).exp())


def test_value() -> None:
    block = CamouflageIdentification(6, reduction=3).double()
    inner, _, outer = block.channel_score
    x = torch.randn(2, 6, 5, 7, dtype=torch.float64)
    expected = []
    for image in x:
        scores = [
            outer.weight[:, :, 0, 0] @ (inner.weight[:, :, 0, 0] @ pooled).clamp(min=0)
            for pooled in (image.flatten(1).mean(1), image.flatten(1).max(1).values)
        ]
        image = image * _sigmoid(sum(scores))[:, None, None]
        pooled = torch.stack([image.mean(0), image.max(0).values])
        expected.append(image * _sigmoid(F.conv2d(pooled, block.pixel_score.weight, padding=3)))
    torch.testing.assert_close(block(x), torch.stack(expected))


def test_attention_only_damps() -> None:
    block, x = CamouflageIdentification(16), torch.randn(2, 16, 8, 8)
    assert (block(x).abs() <= x.abs()).all()
    assert torch.equal(block(x).sign(), x.sign())


def test_no_score_lets_a_quarter_pass() -> None:
    """Both attentions of nothing are sigmoid(0)."""
    block = CamouflageIdentification(16)
    for parameter in block.parameters():
        torch.nn.init.zeros_(parameter)
    x = torch.randn(2, 16, 8, 8)
    torch.testing.assert_close(block(x), x / 4)


def test_gradient() -> None:
    block = CamouflageIdentification(4, reduction=2).double().requires_grad_(False)
    assert torch.autograd.gradcheck(block, [torch.randn(1, 4, 3, 4, dtype=torch.float64, requires_grad=True)])
