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

import colorsys

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from monai_kd.transforms import RandHued


def turned(image, turn):
    transform = RandHued("image", prob=1.0, shift=0.5)
    transform._turn = turn
    return torch.as_tensor(transform._turned(image))


def test_equals_a_rotation_around_the_greys():
    """Rodrigues' formula in NumPy, about (1, 1, 1)."""
    image, angle = np.random.RandomState(0).uniform(0.3, 0.7, (3, 5, 4)), 0.4
    axis = np.ones(3) / np.sqrt(3)
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    rotation = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
    expected = np.tensordot(rotation, image, 1)
    np.testing.assert_allclose(turned(torch.from_numpy(image), angle / (2 * np.pi)).numpy(), expected, atol=1e-9)


def test_a_third_of_a_turn_exchanges_the_channels():
    image = torch.rand(3, 4, 4)
    torch.testing.assert_close(turned(image, 1 / 3), image[[2, 0, 1]])
    torch.testing.assert_close(turned(image, -1 / 3), image[[1, 2, 0]])


def test_greys_and_means_stay():
    grey = torch.rand(1, 4, 4).expand(3, -1, -1)
    torch.testing.assert_close(turned(grey, 0.2), grey)
    image = torch.rand(3, 4, 4) * 0.2 + 0.4
    torch.testing.assert_close(turned(image, 0.2).mean(0), image.mean(0))


def test_hue_of_hsv_moves_in_its_direction():
    """Red turns to yellow, as adding to the hue does."""
    changed = turned(torch.tensor([0.6, 0.4, 0.4]).reshape(3, 1, 1), 0.1).flatten().tolist()
    assert colorsys.rgb_to_hsv(*changed)[0] == pytest.approx(0.1, abs=0.02)


def test_stays_between_0_and_1():
    changed = turned(torch.tensor([1.0, 0.0, 0.0]).reshape(3, 1, 1), 0.5)
    assert changed.min() >= 0
    assert changed.max() <= 1


def test_probability_and_seed():
    image, transform = torch.rand(3, 4, 4), RandHued("image", prob=0.5).set_random_state(0)
    same = [torch.equal(torch.as_tensor(transform({"image": image})["image"]), image) for _ in range(40)]
    assert 10 <= sum(same) <= 30
    one, other = (RandHued("image", prob=1.0).set_random_state(2)({"image": image})["image"] for _ in range(2))
    assert torch.equal(one, other)
    torch.testing.assert_close(RandHued("image", prob=1.0, shift=0.0)({"image": image})["image"].as_tensor(), image)


def test_gives_tensors_whatever_is_drawn():
    transform = RandHued("image", prob=0.5).set_random_state(0)
    kinds = {type(transform({"image": np.zeros((3, 4, 4), np.float32)})["image"]) for _ in range(20)}
    assert kinds == {MetaTensor}


def test_keeps_metadata():
    changed = RandHued("image", prob=1.0)({"image": MetaTensor(torch.rand(3, 8, 8), meta={"case": "a"})})["image"]
    assert changed.meta["case"] == "a"
    assert changed.dtype == torch.float32


def test_guards():
    with pytest.raises(ValueError, match=r"`shift` must be in \[0, 0.5\], but got 0.6"):
        RandHued("image", shift=0.6)
    with pytest.raises(ValueError, match=r"images of three channels, but got \(1, 4, 4\)"):
        RandHued("image", prob=1.0)({"image": torch.rand(1, 4, 4)})
    for image, got in (
        (255 * torch.ones(3, 4, 4), "torch.float32 from 255 to 255"),
        (torch.ones(3, 4, 4) - 2, "torch.float32 from -1 to -1"),
        (torch.full((3, 4, 4), 200, dtype=torch.uint8), "torch.uint8 from 200 to 200"),
    ):
        with pytest.raises(ValueError, match=rf"floating-point values in \[0, 1\], but got {got}; scale them first"):
            RandHued("image", prob=1.0)({"image": image})
