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

import time

import nibabel
import numpy as np
import pytest

from monai_kd.data import ct_phantom, folder_cases, kits19_cases, lits_cases, write_phantoms
from monai_kd.transforms import check_hounsfield

READERS = {"lits": lits_cases, "kits19": kits19_cases, "folder": folder_cases}


@pytest.mark.parametrize("organ", ["liver", "kidney"])
def test_is_a_ct_with_an_organ_and_tumours_of_low_contrast(organ):
    for seed in range(6):
        image, label, affine = ct_phantom(seed, size=64, num_slices=12, organ=organ)
        assert image.dtype == np.int16
        assert image.shape == label.shape == (64, 64, 12)
        check_hounsfield(image)
        assert np.unique(label).tolist() == [0, 1, 2]
        assert 0.005 < (label > 0).mean() < 0.15
        inside, tumour = (image[label == k].astype(float) for k in (1, 2))
        contrast = np.median(inside) - np.median(tumour)
        assert (8 < contrast < 55) if organ == "liver" else (20 < contrast < 95)
        assert 8 < inside.std() < 80
        assert nibabel.aff2axcodes(affine) == ("L", "P", "S")


def test_noise_hides_single_voxels_of_a_tumour():
    image, label, _ = ct_phantom(1, size=96, num_slices=16)
    liver, tumour = image[label == 1], image[label == 2]
    threshold = (np.median(liver) + np.median(tumour)) / 2
    assert 0.02 < (liver < threshold).mean() < 0.3
    assert (image[label == 0] < threshold).mean() > 0.5  # and darkness alone says nothing


def test_equal_seeds_equal_phantoms():
    one, same, other = ct_phantom(5, 48, 8), ct_phantom(5, 48, 8), ct_phantom(6, 48, 8)
    for a, b in zip(one, same):
        np.testing.assert_array_equal(a, b)
    assert not np.array_equal(one.image, other.image)
    assert not np.allclose(one.affine, other.affine)  # spacing varies


def test_global_random_state_is_left_alone():
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    ct_phantom(0, 32, 4)
    np.testing.assert_array_equal(np.random.get_state()[1], before)


@pytest.mark.parametrize("layout", READERS)
def test_layouts_are_read_by_their_readers(tmp_path, layout):
    write_phantoms(tmp_path, layout, num_cases=4, size=32, num_slices=6, progress=False)
    cases = READERS[layout](tmp_path)
    assert len(cases) == 4
    loaded = [nibabel.load(case["image"]) for case in cases]
    assert len({image.shape for image in loaded}) > 1
    assert len({tuple(np.round(np.sort(image.header.get_zooms()), 3)) for image in loaded}) == 4
    for case, image in zip(cases, loaded):
        label = nibabel.load(case["label"])
        np.testing.assert_allclose(label.affine, image.affine, atol=1e-5)
        assert label.get_data_dtype() == np.uint8
        assert np.unique(label.dataobj).tolist() == [0, 1, 2]


def test_layouts_hold_the_same_phantoms_and_kits19_stores_slices_first(tmp_path):
    arrays = {}
    for layout, reader in READERS.items():
        folder = write_phantoms(tmp_path / layout, layout, num_cases=1, size=32, num_slices=6, progress=False)
        image = nibabel.load(reader(folder)[0]["image"])
        arrays[layout] = (image, nibabel.as_closest_canonical(image))
    for layout in READERS:
        np.testing.assert_array_equal(arrays[layout][1].dataobj, arrays["lits"][1].dataobj)
        np.testing.assert_allclose(arrays[layout][1].affine, arrays["lits"][1].affine, atol=1e-4)
    stored = arrays["kits19"][0]
    assert nibabel.aff2axcodes(stored.affine) == ("I", "P", "L")
    assert stored.shape[1:] == (32, 32)


def test_case_does_not_depend_on_the_number_of_cases(tmp_path):
    few = write_phantoms(tmp_path / "few", "folder", num_cases=1, size=32, num_slices=6, progress=False)
    many = write_phantoms(tmp_path / "many", "folder", num_cases=2, size=32, num_slices=6, progress=False)
    one, same = (nibabel.load(folder_cases(folder)[0]["image"]) for folder in (few, many))
    np.testing.assert_array_equal(one.dataobj, same.dataobj)


def test_is_quick():
    start = time.process_time()
    ct_phantom(0, size=128, num_slices=20)
    assert time.process_time() - start < 2.0  # 0.1 to 0.2 s on one core


def test_guards(tmp_path):
    with pytest.raises(ValueError, match="`organ` must be liver or kidney, but got 'lung'"):
        ct_phantom(0, organ="lung")
    with pytest.raises(ValueError, match="`size` must be at least 32 and `num_slices` 4, but got 16 and 20"):
        ct_phantom(0, size=16)
    with pytest.raises(ValueError, match="`layout` must be one of lits, kits19, folder, but got 'brats'"):
        write_phantoms(tmp_path, "brats")
