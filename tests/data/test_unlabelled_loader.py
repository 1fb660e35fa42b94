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

"""Loaders of images without labels: the transforms of the labelled ones, what is listed, refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from monai.transforms import Compose, LoadImaged, RandFlipd, RandSpatialCropSamplesd
from PIL import Image

from monai_kd.data import unlabelled_loader, write_endoscopy_phantoms, write_phantoms
from monai_kd.data.unlabelled_loader import photos_below, without_labels
from monai_kd.transforms import LoadMaskd, LoadRGBd, LoadSliced


@pytest.fixture
def photos(tmp_path):
    for i, name in enumerate(("b.png", "inner/a.JPG", "c.bmp", ".hidden.png", "notes.txt")):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        if path.suffix == ".txt":
            path.write_text("no picture")
        else:
            Image.fromarray(np.full((8, 8, 3), 40 * i, np.uint8)).save(path)
    return tmp_path


def test_photos_below_a_folder(photos):
    assert {case["case"] for case in photos_below(photos)} == {"b", "inner_a", "c"}


def test_masks_are_no_images(tmp_path):
    write_endoscopy_phantoms(tmp_path, "folder", num_frames=3, size=48, progress=False)
    assert {Path(case["image"]).parent.name for case in photos_below(tmp_path)} == {"images"}
    assert len(photos_below(tmp_path)) == 3


def test_photos_get_the_transforms_of_the_labelled_ones(photos):
    flip = RandFlipd(["image", "label"], prob=1.0, spatial_axis=0)
    transform = Compose([LoadRGBd("image"), LoadMaskd("label"), flip])
    (batch,) = unlabelled_loader(photos, transform, "photos", batch_size=3)
    assert set(batch) == {"image", "case"}
    assert batch["image"].shape == (3, 3, 8, 8)
    assert not flip.allow_missing_keys  # a labelled item without its label is still an error


def test_slices_of_volumes(tmp_path):
    write_phantoms(tmp_path, "folder", num_cases=2, size=32, num_slices=4, progress=False)
    transform = Compose([LoadSliced(["image", "label"])])
    loader = unlabelled_loader(tmp_path / "images", transform, "slices", batch_size=3, progress=False)
    assert len(loader.dataset) == 8
    assert len(loader) == 2  # the last batch is not full
    assert next(iter(loader))["image"].shape == (3, 1, 32, 32)


def test_patches_of_volumes(tmp_path):
    write_phantoms(tmp_path, "folder", num_cases=2, size=32, num_slices=4, progress=False)
    crop = RandSpatialCropSamplesd(["image", "label"], roi_size=(8, 8, 4), num_samples=2, random_size=False)
    transform = Compose([LoadImaged(["image", "label"], ensure_channel_first=True), crop])
    loader = unlabelled_loader(tmp_path / "images", transform, "volumes", batch_size=2)
    assert next(iter(loader))["image"].shape == (4, 1, 8, 8, 4)


def test_images_are_shuffled_by_the_seed(photos):
    loader = unlabelled_loader(photos, Compose([LoadRGBd("image")]), "photos", batch_size=1)
    orders = []
    for seed in (0, 0, 1, 2, 3):
        torch.manual_seed(seed)
        orders.append(tuple(batch["case"][0] for batch in loader))
    assert orders[0] == orders[1]
    assert len(set(orders)) > 1


def test_no_folder_is_no_loader():
    assert unlabelled_loader(None, Compose([]), "photos", batch_size=2) is None


def test_transforms_of_dictionaries_alone_change():
    own = without_labels(Compose([Compose([RandFlipd(["image", "label"])]), LoadRGBd("image")]))
    assert all(each.allow_missing_keys for each in own.flatten().transforms)


class TestRefusals:
    def test_kind(self):
        with pytest.raises(ValueError, match="`kind` must be one of slices, volumes, photos, but got 'images'"):
            unlabelled_loader(None, Compose([]), "images", batch_size=2)

    def test_fewer_than_a_batch(self, photos):
        with pytest.raises(ValueError, match="at least a batch of 9 images, but got 3 in .*lower `batch_size`"):
            unlabelled_loader(photos, Compose([LoadRGBd("image")]), "photos", batch_size=9)

    def test_no_pictures(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="`folder` must hold pictures"):
            photos_below(tmp_path)


def test_the_word_mixed_is_handed_on():
    assert unlabelled_loader("mixed", Compose([]), "photos", batch_size=2) == "mixed"
