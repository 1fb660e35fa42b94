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

from monai_kd.bundle import demo_cases as module
from monai_kd.bundle.demo_cases import SIZE, SliceBatches, demo_cases


def test_no_case_is_in_two_groups(few_cases):
    groups = vars(few_cases).values()
    images = [case["image"] for group in groups for case in group]
    assert len(images) == 36
    assert len({float(image.sum()) for image in images}) == 36


def test_images_are_windowed_and_labels_hold_the_classes(few_cases):
    for case in few_cases.test:
        assert case["image"].shape == case["label"].shape == (1, SIZE, SIZE, 6)
        assert 0 <= case["image"].min() < case["image"].max() <= 1
        assert case["label"].unique().tolist() == [0, 1, 2]


def test_same_seed_same_cases_whatever_their_number(few_cases, monkeypatch):
    monkeypatch.setattr(module, "FEWEST_CASES", 12)
    again, other = demo_cases(12, seed=0), demo_cases(12, seed=1)
    for one, two, three in zip(few_cases.test, again.test, other.test):
        assert torch.equal(one["image"], two["image"])
        assert not torch.equal(one["image"], three["image"])


def test_few_cases_are_refused():
    with pytest.raises(ValueError, match="`num_cases` must be >= 36, but got 35"):
        demo_cases(35, seed=0)


def test_loaders_of_one_seed_give_equal_batches_whatever_is_drawn_beside(few_cases):
    one = list(SliceBatches(few_cases.labelled, 2, 3, seed=0))
    batches = iter(SliceBatches(few_cases.labelled, 2, 3, seed=0))
    other = iter(SliceBatches(few_cases.unlabelled, 2, 3, seed=1, label=False))
    for batch in one:
        torch.rand(1)
        assert set(next(other)) == {"image"}
        twin = next(batches)
        assert torch.equal(batch["image"], twin["image"])
        assert torch.equal(batch["label"], twin["label"])


def test_image_and_label_move_together(few_cases):
    case = few_cases.labelled[0]
    twin = {"case": "twin", "image": (case["label"] > 0).float(), "label": (case["label"] > 0).long()}
    batch = next(iter(SliceBatches([twin], 8, 1, seed=0)))
    bright = batch["image"] > 0.5
    assert (bright == (batch["label"] > 0)).float().mean() > 0.98
