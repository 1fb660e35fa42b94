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

"""What one channel means: the same in logits, probabilities and classes."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from monai_kd.losses._channels import (
    classes_of,
    foreground,
    largest,
    most_probable,
    of_two,
    probabilities,
    two_channels,
)


def logits_of(channels: int, seed: int, dims: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(2, channels, *[3] * dims, generator=generator, dtype=torch.float64)


@given(seed=st.integers(0, 99), dims=st.sampled_from([2, 3]))
def test_one_channel_is_two_with_zero_for_the_background(seed, dims):
    one = logits_of(1, seed, dims)
    two = two_channels(one)
    assert torch.equal(two[:, :1], torch.zeros_like(one))
    assert torch.equal(two[:, 1:], one)
    torch.testing.assert_close(of_two(probabilities(one)), probabilities(two))
    assert torch.equal(classes_of(one), classes_of(two))
    assert torch.equal(most_probable(probabilities(one)), most_probable(probabilities(two)))
    torch.testing.assert_close(largest(probabilities(one)), largest(probabilities(two)))
    torch.testing.assert_close(foreground(probabilities(one)), foreground(probabilities(two)))


@given(seed=st.integers(0, 99), channels=st.integers(2, 4))
def test_several_channels_are_classes(seed, channels):
    logits = logits_of(channels, seed)
    assert two_channels(logits) is logits
    soft_label = probabilities(logits)
    assert of_two(soft_label) is soft_label
    torch.testing.assert_close(soft_label.sum(1), torch.ones(2, 3, 3, dtype=torch.float64))
    assert torch.equal(classes_of(logits), most_probable(soft_label))
    torch.testing.assert_close(foreground(soft_label), soft_label[:, 1:].sum(1, keepdim=True))


def test_undecided_pixels_are_background():
    undecided = torch.zeros(1, 1, 1, 1)
    for logits in (undecided, two_channels(undecided)):
        assert classes_of(logits).item() == most_probable(probabilities(logits)).item() == 0
