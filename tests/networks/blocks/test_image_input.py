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

import warnings

import pytest
import torch

from monai_kd.networks.blocks import ImageInput


def test_single_channel_becomes_three() -> None:
    image = torch.rand(2, 1, 8, 8)
    assert torch.equal(ImageInput(1, divisor=8)(image), torch.cat([image, image, image], dim=1))


def test_single_channel_stays_one_on_request() -> None:
    door, image = ImageInput(1, divisor=8, repeat=False), torch.rand(2, 1, 8, 8)
    assert torch.equal(door(image), image)
    assert door.out_channels == 1


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_other_numbers_of_channels_pass(channels: int) -> None:
    door, image = ImageInput(channels, divisor=4), torch.rand(1, channels, 4, 8)
    assert torch.equal(door(image), image)
    assert door.out_channels == channels


@pytest.mark.parametrize(("height", "width"), [(12, 16), (16, 12), (4, 4)])
def test_size_must_be_divisible(height: int, width: int) -> None:
    with pytest.raises(
        ValueError, match=rf"divisible by 8, but got {height} and {width}; pad by .*DivisiblePadd\(k=8\)"
    ):
        ImageInput(1, divisor=8)(torch.zeros(1, 1, height, width))


def test_trace_takes_other_sizes_without_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error", torch.jit.TracerWarning)
        traced = torch.jit.trace(ImageInput(1, divisor=8), torch.zeros(1, 1, 8, 8))
    assert traced(torch.zeros(2, 1, 16, 24)).shape == (2, 3, 16, 24)


def test_exported_program_keeps_the_check() -> None:
    size = {0: torch.export.Dim.AUTO, 2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}
    door = torch.export.export(ImageInput(1, divisor=8), (torch.zeros(2, 1, 16, 24),), dynamic_shapes=(size,)).module()
    assert door(torch.zeros(3, 1, 24, 16)).shape == (3, 3, 24, 16)
    with pytest.raises((AssertionError, RuntimeError), match="8"):  # the wording is torch's
        door(torch.zeros(2, 1, 20, 24))


@pytest.mark.parametrize("argument", ["in_channels", "divisor"])
def test_arguments_must_be_positive(argument: str) -> None:
    with pytest.raises(ValueError, match=f"`{argument}` must be 1 or more, but got 0"):
        ImageInput(**{"in_channels": 1, "divisor": 8, argument: 0})
