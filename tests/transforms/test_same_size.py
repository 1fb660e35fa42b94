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
from monai.transforms import Compose, LoadImaged, Transposed
from PIL import Image

from monai_kd.transforms import LoadMaskd, LoadRGBd, SameSized

KEYS = ["image", "label"]


@pytest.fixture
def item(tmp_path):
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(np.zeros((20, 30), np.uint8)).save(tmp_path / "a_mask.png")
    return {"image": str(tmp_path / "a.png"), "label": str(tmp_path / "a_mask.png")}


def load(*of_label):
    return Compose([LoadRGBd("image"), *of_label, SameSized(KEYS)])


def test_label_that_monai_loads_transposed_is_refused(item):
    of_monai = LoadImaged("label", ensure_channel_first=True)
    message = r"must have the size of `image`, but got \(30, 20\) and \(20, 30\), transposed \(.*a_mask.png, .*a.png"
    with pytest.raises((RuntimeError, ValueError)) as caught:
        load(of_monai)(item)
    with pytest.raises(ValueError, match=message):
        raise caught.value.__cause__ or caught.value
    assert load(of_monai, Transposed("label", [0, 2, 1]))(item)["label"].shape == (1, 20, 30)
    assert load(LoadMaskd("label"))(item)["label"].shape == (1, 20, 30)


def test_other_sizes_are_refused():
    images = {"image": np.zeros((3, 4, 6)), "label": np.zeros((1, 2, 3))}
    with pytest.raises(ValueError, match=r"but got \(2, 3\) and \(4, 6\) \(label, image\); repair the pair"):
        SameSized(KEYS)(images)
    assert SameSized(KEYS, allow_missing_keys=True)({"image": images["image"]}).keys() == {"image"}
