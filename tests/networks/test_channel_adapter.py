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

"""The adapter against its two operations, and what it leaves alone."""

from __future__ import annotations

import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from torch.nn import functional as F

from monai_kd.networks import ChannelAdapter


@pytest.mark.parametrize("dims", [2, 3])
def test_is_a_projection_of_the_channels(dims):
    adapter, feature = ChannelAdapter(3, 5, spatial_dims=dims), torch.randn(2, 3, *[4] * dims)
    weight = adapter.projection.weight.flatten(1)
    torch.testing.assert_close(adapter(feature), torch.einsum("oc,bc...->bo...", weight, feature))
    assert [name for name, _ in adapter.named_parameters()] == ["projection.weight"]  # no bias


@pytest.mark.parametrize(("dims", "mode"), [(2, "bilinear"), (3, "trilinear")])
@pytest.mark.parametrize("scale", [0.5, 2.0, 1.5])
def test_then_an_interpolation(dims, mode, scale):
    adapter, feature = ChannelAdapter(3, 5, dims, scale), torch.randn(2, 3, *[4] * dims)
    expected = F.interpolate(adapter.projection(feature), scale_factor=scale, mode=mode, align_corners=False)
    assert torch.equal(adapter(feature), expected)
    assert adapter(feature).shape == (2, 5, *[int(4 * scale)] * dims)


@settings(max_examples=10)
@given(st.integers(1, 6), st.integers(1, 6), st.integers(2, 7), st.integers(2, 7))
def test_shapes(channels, out_channels, height, width):
    feature = torch.zeros(1, channels, height, width)
    assert ChannelAdapter(channels, out_channels)(feature).shape == (1, out_channels, height, width)
    assert ChannelAdapter(channels, out_channels, 2, 2)(feature).shape == (1, out_channels, 2 * height, 2 * width)


def test_3d_of_depth_one_is_2d():
    flat, deep, feature = ChannelAdapter(3, 5), ChannelAdapter(3, 5, spatial_dims=3), torch.randn(2, 3, 6, 6)
    deep.projection.weight.data = flat.projection.weight.data[..., None]
    torch.testing.assert_close(deep(feature[:, :, None])[:, :, 0], flat(feature))


def test_building_one_leaves_the_random_state_alone():
    state = torch.get_rng_state()
    first, second = ChannelAdapter(3, 5), ChannelAdapter(3, 5)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.projection.weight, second.projection.weight)


def test_trains_pickles_and_takes_metatensors():
    adapter, feature = ChannelAdapter(3, 5, scale_factor=2), torch.randn(1, 3, 4, 4)
    adapter(MetaTensor(feature)).sum().backward()
    assert adapter.projection.weight.grad is not None
    assert torch.equal(pickle.loads(pickle.dumps(adapter))(feature), adapter(feature))


@pytest.mark.parametrize("name", ["in_channels", "out_channels", "scale_factor"])
@pytest.mark.parametrize("value", [0, -1])
def test_sizes_must_be_positive(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be positive, but got {value}"):
        ChannelAdapter(**({"in_channels": 3, "out_channels": 5} | {name: value}))


def test_dimensions():
    with pytest.raises(ValueError, match="`spatial_dims` must be 2 or 3, but got 1"):
        ChannelAdapter(3, 5, spatial_dims=1)


def test_other_channels():
    with pytest.raises(ValueError, match=r"`feature` must have 3 channels, but got 4; build `ChannelAdapter\(4, 5\)`"):
        ChannelAdapter(3, 5)(torch.zeros(1, 4, 8, 8))
