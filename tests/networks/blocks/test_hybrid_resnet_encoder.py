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
from hypothesis import given, settings
from hypothesis import strategies as st

from monai_kd.networks.blocks import HybridResNetEncoder, StandardizedConv2d

# its values are compared with those of a published file in nets/test_trans_unet.py


@settings(max_examples=5)
@given(st.integers(1, 40), st.integers(2, 40))
def test_maps_have_a_half_to_a_sixteenth_of_the_size(height: int, width: int) -> None:
    with torch.device("meta"):
        encoder, image = HybridResNetEncoder(width=32, blocks=(1, 1, 1)), torch.zeros(1, 3, 16 * height, 16 * width)
    maps = encoder(image)
    assert [tuple(feature.shape[2:]) for feature in maps] == [(height * n, width * n) for n in (8, 4, 2, 1)]
    assert [feature.shape[1] for feature in maps] == [32, 128, 256, 512]


def test_first_stage_is_filled_up_with_zeros() -> None:
    feature = HybridResNetEncoder(width=32, blocks=(1, 1, 1))(torch.rand(1, 3, 64, 64))[1]
    assert feature[:, :, -1].abs().max() == feature[:, :, :, -1].abs().max() == 0
    assert (feature[:, :, :-1, :-1] > 0).float().mean() > 0.3


def test_blocks() -> None:
    with torch.device("meta"):
        encoder = HybridResNetEncoder()
    assert [len(stage) for stage in (encoder.stage1, encoder.stage2, encoder.stage3)] == [3, 4, 9]
    assert sum(isinstance(module, StandardizedConv2d) for module in encoder.modules()) == 1 + 3 * 16 + 3


@pytest.mark.parametrize("width", [0, 48])
def test_width(width: int) -> None:
    with pytest.raises(ValueError, match=f"`width` must be a multiple of 32, .* but got {width}"):
        HybridResNetEncoder(width=width)
