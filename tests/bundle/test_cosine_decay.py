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

"""A cosine that ends."""

from __future__ import annotations

import math

import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR

from monai_kd.bundle import cosine_decay


def test_factors():
    factors = [cosine_decay(8)(epoch) for epoch in range(12)]
    assert factors[:8] == pytest.approx([(1 + math.cos(math.pi * epoch / 8)) / 2 for epoch in range(8)])
    assert factors[8:] == [0.001] * 4
    assert all(type(factor) is float for factor in factors)


def test_a_checkpoint_does_not_bring_its_length_back():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 1.0)
    longer = LambdaLR(optimizer, cosine_decay(8))
    longer.load_state_dict(LambdaLR(optimizer, cosine_decay(4)).state_dict())
    assert longer.lr_lambdas[0](4) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("epochs", "least", "said"),
    [(0, 0.1, "`epochs` must be >= 1, but got 0"), (4, 2, "`least` must lie between 0 and 1, but got 2")],
)
def test_out_of_range(epochs, least, said):
    with pytest.raises(ValueError, match=said):
        cosine_decay(epochs, least)
