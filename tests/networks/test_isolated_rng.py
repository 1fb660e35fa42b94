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

"""The random state, before and after."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from monai_kd.networks.isolated_rng import isolated_rng


def test_what_is_drawn_inside_changes_nothing_outside():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with isolated_rng():
        nn.Linear(4, 4)
        torch.manual_seed(9)
    assert torch.equal(torch.rand(3), expected)


def test_also_after_an_error():
    def fail() -> None:
        with isolated_rng():
            torch.rand(3)
            raise KeyError

    state = torch.get_rng_state()
    with pytest.raises(KeyError):
        fail()
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_the_device_as_well():
    torch.zeros(1, device="cuda")
    state = torch.cuda.get_rng_state()
    with isolated_rng():
        torch.rand(3, device="cuda")
    assert torch.equal(torch.cuda.get_rng_state(), state)
