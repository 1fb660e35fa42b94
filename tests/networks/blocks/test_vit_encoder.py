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

from monai_kd.networks.blocks import ViTEncoder

# its values are compared with those of a published file in nets/test_trans_unet.py


def _encoder(**options: float) -> ViTEncoder:
    return ViTEncoder(3, hidden_size=8, mlp_dim=16, num_heads=2, num_layers=2, grid=3, **options).double().eval()


def test_without_positions_places_are_alike() -> None:
    """Attention knows no order: shuffled places give the shuffled map."""
    encoder, feature = _encoder(), torch.randn(2, 3, 3, 4, dtype=torch.float64)
    order = torch.randperm(12)
    shuffled = feature.flatten(2)[:, :, order].unflatten(2, (3, 4))
    torch.testing.assert_close(encoder(shuffled), encoder(feature).flatten(2)[:, :, order].unflatten(2, (3, 4)))
    nn.init.normal_(encoder.position)
    assert not torch.allclose(encoder(shuffled).flatten(2), encoder(feature).flatten(2)[:, :, order])


def test_positions_are_resized_corners_to_corners() -> None:
    """A ramp stays a ramp between the same ends."""
    encoder, seen = _encoder(), []
    ramp = torch.linspace(-1, 1, 3, dtype=torch.float64)
    with torch.no_grad():
        encoder.position.copy_((ramp[:, None] + 10 * ramp).expand(1, 8, 3, 3))
    encoder.layers.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    nn.init.zeros_(encoder.embedding.weight), nn.init.zeros_(encoder.embedding.bias)
    for size in ((3, 3), (5, 2), (1, 7)):
        encoder(torch.randn(1, 3, *size, dtype=torch.float64))
        rows, columns = (torch.linspace(-1, 1, length, dtype=torch.float64) for length in size)
        expected = (rows[:, None] + 10 * columns).flatten()
        torch.testing.assert_close(seen.pop()[0], expected[:, None].expand(-1, 8))


def test_dropout_in_training_only() -> None:
    encoder, feature = _encoder(dropout_rate=0.5), torch.randn(1, 3, 3, 3, dtype=torch.float64)
    assert torch.equal(encoder(feature), encoder(feature))
    encoder.train()
    assert not torch.equal(encoder(feature), encoder(feature))
    none = _encoder(dropout_rate=0.0)
    evaluated = none(feature)
    assert torch.equal(none.train()(feature), evaluated)


def test_gradient() -> None:
    encoder = _encoder().requires_grad_(False)
    feature = torch.randn(1, 3, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(encoder, feature)
