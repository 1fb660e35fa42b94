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

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import MetaTensor
from scipy.ndimage import map_coordinates

from monai_kd.transforms import RandPerspectived


def transform(seed=3, **kwargs):
    return RandPerspectived(**({"keys": ["image"], "prob": 1.0} | kwargs)).set_random_state(seed)


def by_hand(image, tilt):
    """Each pixel by the formula, values by SciPy; the centre of an image of n pixels is at (n - 1) / 2."""
    height, width = image.shape
    result = np.zeros_like(image)
    for i in range(height):
        for j in range(width):
            y, x = i - (height - 1) / 2, j - (width - 1) / 2
            depth = 1 + tilt[0] * y / (height / 2) + tilt[1] * x / (width / 2)
            place = [[y / depth + (height - 1) / 2], [x / depth + (width - 1) / 2]]
            result[i, j] = map_coordinates(image, place, order=1, mode="grid-constant")[0]
    return result


@pytest.mark.parametrize("size", [(9, 9), (8, 12)])
def test_equals_the_formula(size):
    image = np.random.RandomState(0).rand(*size)
    tilt = transform()
    changed = tilt({"image": torch.from_numpy(image)[None]})["image"]
    assert np.abs(tilt._tilt).max() > 0.05
    np.testing.assert_allclose(changed[0].numpy(), by_hand(image, tilt._tilt), atol=1e-4)


def test_without_distortion_nothing_moves():
    image = torch.rand(3, 8, 10)
    torch.testing.assert_close(transform(distortion=0.0)({"image": image})["image"].as_tensor(), image)


def test_centre_stays():
    image = torch.zeros(1, 9, 9)
    image[0, 4, 4] = 1
    for seed in range(5):
        changed = transform(distortion=0.4).set_random_state(seed)({"image": image})["image"]
        assert changed[0, 4, 4] == pytest.approx(1)


def test_straight_lines_stay_straight():
    """The middle line of a bar that crosses the image: its points lie on one line, another one than before."""
    image = torch.zeros(1, 65, 65)
    image[0, :, 45:50] = 1
    changed = transform(distortion=0.4, seed=1)({"image": image})["image"][0].numpy()
    rows = [i for i in range(65) if changed[i].sum() > 0 and changed[i, -1] == 0 == changed[i, 0]][1:-1]
    middle = [np.average(np.arange(65), weights=changed[i]) for i in rows]
    assert len(rows) > 30
    line = np.polyfit(rows, middle, 1)
    assert abs(line[0]) > 0.02
    assert np.abs(np.polyval(line, rows) - middle).max() < 0.2


def test_image_and_label_move_alike():
    label = torch.zeros(1, 32, 32)
    label[0, 8:20, 10:25] = 1
    tilt = transform(keys=["image", "label"], mode=["bilinear", "nearest"])
    changed = tilt({"image": label.clone(), "label": label})
    assert set(changed["label"].unique().tolist()) == {0, 1}
    assert ((changed["image"] > 0.5) != (changed["label"] > 0.5)).float().mean() < 0.02


def test_padding():
    image = torch.ones(1, 16, 16)
    assert transform(padding_mode="zeros", distortion=0.4)({"image": image})["image"].min() == 0
    torch.testing.assert_close(
        transform(padding_mode="border", distortion=0.4)({"image": image})["image"].as_tensor(), image
    )


def test_probability_and_seed():
    image = torch.rand(1, 16, 16)
    tilt = RandPerspectived("image", prob=0.5).set_random_state(0)
    same = [torch.equal(torch.as_tensor(tilt({"image": image})["image"]), image) for _ in range(40)]
    assert 10 <= sum(same) <= 30
    assert {type(tilt({"image": np.zeros((1, 4, 4), np.float32)})["image"]) for _ in range(20)} == {MetaTensor}
    one, other = (transform(seed=5)({"image": image})["image"] for _ in range(2))
    assert torch.equal(one, other)


def test_keeps_metadata_and_a_bundle_builds_it():
    config = {"_target_": "monai_kd.transforms.RandPerspectived", "keys": "image", "prob": 1.0}
    tilt = ConfigParser({"tilt": config}).get_parsed_content("tilt")
    changed = tilt({"image": MetaTensor(torch.rand(3, 8, 8), meta={"case": "a"})})["image"]
    assert changed.meta["case"] == "a"
    assert changed.dtype == torch.float32


def test_guards():
    for distortion in (-0.1, 0.5):
        with pytest.raises(ValueError, match=rf"`distortion` must be in \[0, 0.5\), but got {distortion}"):
            RandPerspectived("image", distortion=distortion)
    with pytest.raises(ValueError, match=r"images of shape \(channels, H, W\), but got \(1, 4, 4, 4\)"):
        transform()({"image": torch.rand(1, 4, 4, 4)})
    with pytest.raises(KeyError, match="label"):
        transform(keys=["label"])({"image": torch.rand(1, 4, 4)})
    assert "label" not in transform(keys=["image", "label"], allow_missing_keys=True)({"image": torch.rand(1, 4, 4)})
