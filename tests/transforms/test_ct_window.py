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

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from monai.bundle import ConfigParser
from monai.data.meta_tensor import MetaTensor
from monai.transforms import CenterSpatialCrop, RandSpatialCrop, ResizeWithPadOrCrop, ScaleIntensityRange

from monai_kd.transforms import CT_WINDOWS, CTWindow, CTWindowd

SLICE = np.array([[[-1000.0, -60.0, -40.0], [60.0, 140.0, 160.0], [300.0, 900.0, -200.0]]])


@pytest.mark.parametrize(
    ("window", "lower", "upper"),
    [("liver", -40, 160), ("liver_code", -60, 140), ("kidney", -200, 300), ((40, 400), -160, 240)],
)
def test_values_of_a_numpy_loop(window, lower, upper):
    expected = [[min(max((v - lower) / (upper - lower), 0.0), 1.0) for v in row] for row in SLICE[0].tolist()]
    result = CTWindow(window)(torch.from_numpy(SLICE))
    np.testing.assert_allclose(result.numpy()[0], expected, atol=1e-6)


def test_presets_are_those_of_the_literature():
    """In HU: of EMKD, and of radiology as (level, width)."""
    assert CT_WINDOWS == {
        "liver": (-40, 160),
        "liver_code": (-60, 140),
        "kidney": (-200, 300),
        "abdomen": (40 - 200, 40 + 200),
        "soft_tissue": (40 - 200, 40 + 200),
        "head_neck": (50 - 175, 50 + 175),
        "mediastinum": (50 - 175, 50 + 175),
        "brain": (40 - 40, 40 + 40),
        "lung": (-600 - 750, -600 + 750),
        "bone": (400 - 900, 400 + 900),
    }


@pytest.mark.parametrize("name", sorted(CT_WINDOWS))
def test_presets_are_monai_range_scaling(name):
    lower, upper = CT_WINDOWS[name]
    expected = ScaleIntensityRange(lower, upper, 0.0, 1.0, clip=True)(SLICE)
    torch.testing.assert_close(CTWindow(name)(SLICE), expected)


def test_level_and_width_are_the_pair_and_the_preset():
    torch.testing.assert_close(CTWindow(level=60, width=200)(SLICE), CTWindow("liver")(SLICE))
    torch.testing.assert_close(CTWindow((60, 200))(SLICE), CTWindow()(SLICE))


@given(arrays.arrays(np.float32, (1, 4, 5), elements=st.floats(-1100, 3071, width=32)))
def test_result_is_float32_between_0_and_1_and_monotonic(image):
    image[0, 0, 0] = -1000.0
    result = CTWindow("kidney")(image)
    assert result.dtype == torch.float32
    assert 0.0 <= result.min() <= result.max() <= 1.0
    order = np.argsort(image, axis=None, kind="stable")
    assert (np.diff(result.numpy().ravel()[order]) >= 0).all()


@pytest.mark.parametrize("dtype", [torch.int16, torch.int32, torch.float16, torch.float64])
def test_any_data_type_gives_the_same(dtype):
    image = torch.from_numpy(SLICE).to(dtype)
    result = CTWindow("liver")(image)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, CTWindow("liver")(SLICE), atol=1e-3, rtol=0)


def test_volume_equals_its_slices():
    volume = torch.randint(-1000, 1500, (1, 6, 5, 4)).float()
    window = CTWindow("soft_tissue")
    torch.testing.assert_close(window(volume), torch.stack([window(volume[..., k]) for k in range(4)], dim=-1))


def test_meta_data_are_kept_and_the_input_is_not_written():
    image = MetaTensor(torch.from_numpy(SLICE), affine=torch.diag(torch.tensor([2.0, 2.0, 1.0])), meta={"a": 1})
    before = image.clone()
    result = CTWindowd(["image"], "liver")({"image": image, "label": 1})
    assert result["label"] == 1
    assert result["image"].meta["a"] == 1
    assert torch.equal(result["image"].affine, image.affine)
    assert torch.equal(image, before)


def test_crop_inside_an_organ_is_accepted():
    image = MetaTensor(torch.full((1, 8, 8), -1000.0))
    image[:, 2:6, 2:6] = torch.arange(40.0, 56.0).view(4, 4)
    for crop in (CenterSpatialCrop(4), RandSpatialCrop((4, 4), random_center=False), ResizeWithPadOrCrop(4)):
        cut = crop(image)
        assert cut.min() == 40
        CTWindow()(cut)
        with pytest.raises(ValueError, match="8-bit"):
            CTWindow()(cut.as_tensor())


def test_range_of_the_volume_decides_for_a_slice():
    inside = torch.arange(40.0, 56.0).view(1, 4, 4)
    CTWindow()(MetaTensor(inside, meta={"volume_range": (-1000.0, 900.0)}))
    with pytest.raises(ValueError, match="8-bit"):
        CTWindow()(MetaTensor(inside, meta={"volume_range": (0.0, 255.0)}))


def test_windowing_twice_is_refused():
    with pytest.raises(ValueError, match="already scaled.*window the image once"):
        CTWindow()(CTWindow()(SLICE))


def test_error_names_file_and_slice():
    image = MetaTensor(torch.tensor([[[0.0, 255.0]]]), meta={"filename_or_obj": "case_7/ct.nii.gz", "slice": 12})
    with pytest.raises(ValueError, match=r"`case_7/ct.nii.gz, slice 12` must be in Hounsfield units, but got .* 8-bit"):
        CTWindowd("image")({"image": image})


def test_check_can_be_switched_off():
    assert CTWindowd("image", check_hu=False)({"image": torch.tensor([[0.0, 60.0]])})["image"][0, 1] == 0.5


def test_missing_key():
    assert CTWindowd("image", allow_missing_keys=True)({"label": 1}) == {"label": 1}
    with pytest.raises(KeyError, match="image"):
        CTWindowd("image")({"label": 1})


def test_pickle_and_bundle_config():
    config = {"_target_": "monai_kd.transforms.CTWindowd", "keys": "image", "window": "liver_code"}
    transform = ConfigParser({"t": config}).get_parsed_content("t")
    for window in (transform, pickle.loads(pickle.dumps(transform))):
        assert window({"image": SLICE})["image"][0, 0, 2] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"window": "livr"}, "`window` must be one of .*liver.*, but got 'livr'"),
        ({"window": (40,)}, r"`window` must be a name or \(level, width\), but got \(40,\)"),
        ({"window": (160, -40)}, r"`width` must be positive, but got -40; a window is \(level, width\)"),
        ({"level": 40, "width": 0}, "`width` must be positive, but got 0"),
        ({"level": 40}, "both `level` and `width`.*but got window=None, level=40 and width=None"),
        ({"window": "liver", "level": 40, "width": 400}, "either `window` or both"),
    ],
)
def test_guards(arguments, message):
    with pytest.raises(ValueError, match=message):
        CTWindow(**arguments)
