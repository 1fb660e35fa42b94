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

import nibabel
import numpy as np
import pytest
import torch

from monai_kd.transforms import check_hounsfield, hounsfield_range

AIR_FAT_LIVER_BONE = np.array([[-1000.0, -100.0], [60.0, 700.0]])


@pytest.mark.parametrize("padding", [-1024, -1500, -2000, -3024])
def test_range_leaves_out_one_padding_value_below_air(padding):
    image = np.array([padding, padding, -1000, 0, 400])
    expected = -1024.0 if padding == -1024 else -1000.0
    assert hounsfield_range(image) == (expected, 400.0)
    assert hounsfield_range(torch.from_numpy(image).to(torch.int16)) == (expected, 400.0)


@pytest.mark.parametrize(
    "image",
    [
        AIR_FAT_LIVER_BONE,
        AIR_FAT_LIVER_BONE.astype(np.int16),
        np.full((4, 4), -1000.0),  # a slice of air
        np.full((4, 4), -1024, dtype=np.int16),  # of padding
        np.zeros((4, 4)),  # a water phantom, or zeros around a crop: no evidence
        np.array([-3024.0, -1000.0, 40.0]),
        np.array([-1000.0, 30000.0]),  # metal on the extended scale
        np.array([-40.0, 160.0]),  # clipped to the liver window, still in HU
    ],
)
def test_legitimate_images_pass(image):
    check_hounsfield(image)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ([0.0, 0.3, 1.0], r"values from 0 to 1, already scaled"),
        ([-1.0, 0.0, 1.0], r"values from -1 to 1, already scaled"),
        ([0, 1, 1], "already scaled"),
        ([0, 17, 255], "an 8-bit picture"),
        ([-3.1, 0.0, 4.2], "standardised"),
        ([0, 1024, 3000], "stored values without rescale"),
        ([-2000, 0, 1024, 2405], "values from 0 to 2405.*stored values without rescale"),  # padded, not rescaled
        ([-1000.0, 64512.0], "beyond the 16 bits"),
        ([-1000.0, float("nan"), 3.0], "nan.*repair the file"),
        ([-1000.0, float("inf")], "inf.*repair the file"),
    ],
)
def test_what_cannot_be_hounsfield_units_is_refused(image, message):
    with pytest.raises(ValueError, match=f"`ct.nii` must be in Hounsfield units, but got .*{message}"):
        check_hounsfield(np.array(image), name="ct.nii")


def test_region_inside_an_organ_passes_when_it_is_known_to_be_one():
    region = np.array([40.0, 60.0, 110.0])
    with pytest.raises(ValueError, match="8-bit"):
        check_hounsfield(region)
    check_hounsfield(region, cropped=True)
    check_hounsfield(region, value_range=(-1000.0, 2000.0))


def test_slice_of_a_scaled_volume_is_refused_though_the_slice_looks_right():
    with pytest.raises(ValueError, match="8-bit"):
        check_hounsfield(np.array([-200.0, 100.0]), value_range=(0.0, 255.0), cropped=True)


def test_scaled_crop_is_refused():
    with pytest.raises(ValueError, match="already scaled"):
        check_hounsfield(np.array([0.1, 0.9]), cropped=True)


def test_infinite_value_is_refused_whatever_the_volume_holds():
    with pytest.raises(ValueError, match="repair the file"):
        check_hounsfield(np.array([-1000.0, np.nan]), value_range=(-1000.0, 100.0))


def body(noise=10.0):
    """Air, fat, tissue and bone."""
    volume = np.full((32, 32, 6), -1000.0)
    volume[4:28, 4:28] = 50
    volume[4:6, 4:28] = -100
    volume[14:16, 14:16] = 1100
    return volume + np.random.default_rng(0).normal(0, noise, volume.shape)


@pytest.mark.parametrize("intercept", [-1024, -1000])
@pytest.mark.parametrize("noise", [0.0, 1.0, 30.0])
def test_intercept_applied_twice_is_refused(intercept, noise):
    with pytest.raises(ValueError, match=r"RescaleIntercept was applied twice; take it off once \(add 1024"):
        check_hounsfield(body(noise) + intercept)
    if noise:  # of a part with fat, without air
        with pytest.raises(ValueError, match="applied twice"):
            check_hounsfield(body(noise)[4:24, 4:28] + intercept, cropped=True)
    check_hounsfield(body(noise))


def test_volume_without_any_tissue_above_its_padding_is_refused():
    """Of two values only, air and tissue."""
    volume = np.full((8, 8, 4), -1000)
    volume[2:6, 2:6] = 30
    check_hounsfield(volume)
    with pytest.raises(ValueError, match="values from -2024 to -994, where air is -1000"):
        check_hounsfield(volume - 1024)


@pytest.mark.parametrize("padding", [-2000, -2048, -3024])
def test_padding_and_what_resampling_makes_of_it_pass(padding):
    volume = body()
    x, y = np.mgrid[:32, :32]
    radius = np.hypot(x - 15.5, y - 15.5)
    volume[radius > 15] = padding
    check_hounsfield(volume)
    rim = (radius > 14.7) & (radius < 15)
    assert 0.01 < rim.sum() / (radius < 15).sum() < 0.052
    volume[rim] = np.linspace(padding, -1000, int(rim.sum()))[:, None]
    check_hounsfield(volume)
    check_hounsfield(volume[:1])  # padding and air alone
    assert hounsfield_range(volume)[0] >= -1100


def test_real_volumes_pass_and_are_refused_when_rescaled_twice(shared_data):
    for folder in ("ct-headneck", "ct-sarcoma", "ct-3dircadb17"):
        for file in sorted((shared_data / folder / "images").glob("*.nii.gz"))[::15]:
            values = np.asarray(nibabel.load(file).dataobj)
            check_hounsfield(values)
            with pytest.raises(ValueError, match="applied twice"):
                check_hounsfield(values - 1024)
