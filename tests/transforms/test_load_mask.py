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
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from monai_kd.transforms import LoadMask, LoadMaskd


def disc(height=48, width=64):
    y, x = np.mgrid[:height, :width]
    return (x - 30) ** 2 + (y - 20) ** 2 < 15**2


def save(path, array, **options):
    Image.fromarray(array).save(path, **options)
    return path


def loaded(path):
    mask = LoadMask()(path)
    assert mask.dtype == torch.float32
    assert mask.shape[0] == 1
    return mask.numpy()[0]


@pytest.mark.parametrize(
    "stored",
    [
        lambda m: (m * 255).astype(np.uint8),
        lambda m: m.astype(np.uint8),
        lambda m: m,  # one bit
        lambda m: (m * 65535).astype(np.uint16),
        lambda m: (m * 255).astype(np.uint16),
        lambda m: m.astype(np.uint16),
        lambda m: np.repeat((m * 255).astype(np.uint8)[..., None], 3, axis=2),
        lambda m: np.dstack([m * 255, m * 0, m * 0]).astype(np.uint8),  # red
        lambda m: np.dstack([m * 255, m * 255, m * 255, m * 0 + 255]).astype(np.uint8),  # opaque
    ],
)
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_every_way_to_store_a_mask_gives_it_back(tmp_path, stored, suffix):
    np.testing.assert_array_equal(loaded(save(tmp_path / f"a{suffix}", stored(disc()))), disc())


def test_palettes(tmp_path):
    for number, colour in enumerate([(255, 255, 255), (128, 0, 0), (1, 1, 1)]):
        image = Image.fromarray(disc().astype(np.uint8)).convert("P")
        image.putpalette([0, 0, 0, *colour])
        image.save(tmp_path / f"{number}.png")
        np.testing.assert_array_equal(loaded(tmp_path / f"{number}.png"), disc())


@pytest.mark.parametrize("quality", [5, 30, 75, 90, 95, 100])
def test_noise_of_jpeg_is_none_of_the_mask(tmp_path, quality):
    path = save(tmp_path / "a.jpg", (disc() * 255).astype(np.uint8), quality=quality)
    values = np.asarray(Image.open(path))
    assert len(np.unique(values)) > 2
    assert (loaded(path) != disc()).mean() < 0.01
    np.testing.assert_array_equal(loaded(path), values > 127)
    np.testing.assert_array_equal(loaded(save(tmp_path / "from_jpeg.png", values)), values > 127)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".jpg"])
def test_empty_mask_is_empty(tmp_path, suffix):
    assert loaded(save(tmp_path / f"a{suffix}", np.zeros((32, 32), np.uint8))).sum() == 0
    if suffix == ".jpg":
        assert loaded(save(tmp_path / "grey.jpg", np.full((32, 32), 4, np.uint8))).sum() == 0


@pytest.mark.parametrize("value", [1, 255])
def test_full_mask_is_full(tmp_path, value):
    assert loaded(save(tmp_path / "a.png", np.full((32, 32), value, np.uint8))).mean() == 1


@given(st.integers(0, 127), st.integers(128, 255))
def test_threshold_is_in_the_middle_of_the_range(tmp_path_factory, low, high):
    path = save(tmp_path_factory.mktemp("masks") / "a.png", np.array([[low, high]], np.uint8))
    np.testing.assert_array_equal(loaded(path), [[0, 1]])


def test_ambiguous_masks_are_refused(tmp_path):
    noisy = np.zeros((32, 32), np.uint8)
    noisy[4:8] = 3
    noisy[10] = 1
    for name, array in {
        "noise.png": noisy,
        "classes.png": disc() * np.uint8(2) + np.eye(48, 64, dtype=np.uint8),
    }.items():
        with pytest.raises(ValueError, match=f"must be a mask of 0 and 255, or of 0 and 1 .* 0 to . in .*{name}"):
            LoadMask()(save(tmp_path / name, array))
    with pytest.raises(ValueError, match=r"a format without loss, but got values from 0 to .*ones.jpg \(JPEG\)"):
        LoadMask()(save(tmp_path / "ones.jpg", 60 * disc().astype(np.uint8), quality=100))
    with pytest.raises(ValueError, match="a mask of 0 and 65535, .* 0 to 4095"):
        LoadMask()(save(tmp_path / "12bit.png", disc() * np.uint16(4095)))


def test_photographs_and_transparency_are_refused(tmp_path):
    photo = np.random.RandomState(0).randint(60, 200, (32, 32, 3)).astype(np.uint8)
    with pytest.raises(ValueError, match="must be a mask in black and white, but got a photograph in .*photo.jpg"):
        LoadMask()(save(tmp_path / "photo.jpg", photo))
    seen = np.dstack([np.zeros((48, 64, 3)), disc() * 255]).astype(np.uint8)  # all of it in the alpha channel
    with pytest.raises(ValueError, match="must be a mask without transparency, but got some in .*alpha.png"):
        LoadMask()(save(tmp_path / "alpha.png", seen))
    with pytest.raises(ValueError, match="8 or 16 bits a channel, but got mode F"):
        LoadMask()(save(tmp_path / "float.tif", disc().astype(np.float32)))


def test_dictionary(tmp_path):
    path = save(tmp_path / "a.png", disc())
    item = LoadMaskd(["label", "more"], allow_missing_keys=True)({"label": path, "image": 1})
    np.testing.assert_array_equal(item["label"].numpy()[0], disc())
    assert item["label"].meta["filename_or_obj"] == str(path)


def test_masks_of_real_data(shared_data):
    for name, expected in {"kvasir-seg": 0.13, "cvc-clinicdb": 0.09}.items():
        files = sorted((shared_data / name / "masks").iterdir())[::50]
        share = np.mean([loaded(file).mean() for file in files])
        assert 0.5 * expected < share < 2 * expected


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_three_classes_are_refused(tmp_path, suffix):
    cup_and_disc = np.where(disc(), 128, 255).astype(np.uint8)  # as REFUGE has it: 0 cup, 128 disc, 255 background
    cup_and_disc[15:25, 25:35] = 0
    with pytest.raises(ValueError, match=rf"of two values, but got 0, 128, 255 on more than 1 % .* in .*a\{suffix}"):
        LoadMask()(save(tmp_path / f"a{suffix}", cup_and_disc))
    colours = np.repeat(cup_and_disc[..., None], 3, axis=2)
    with pytest.raises(ValueError, match="but got 0, 128, 255 on"):
        LoadMask()(save(tmp_path / f"rgb{suffix}", colours))
    with pytest.raises(ValueError, match="but got 0, 32896, 65535 on"):
        LoadMask()(save(tmp_path / f"16{suffix}", cup_and_disc.astype(np.uint16) * 257))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_void_beside_classes_is_no_lesion(tmp_path, suffix):
    """As Pascal VOC has it, 0 is background, 1 the class, 255 void: above the middle of the range is void alone."""
    one = disc().astype(np.uint8)
    two, ring, dot, background = one.copy(), one.copy(), one.copy(), 255 - one
    two[-6:] = 2
    ring[:2] = two[:2] = 255
    dot[0, 0] = 255
    background[-6:] = 0
    found = {"0, 1, 255": ring, "0, 1, 2, 255": two, "0, 1": dot, "0, 254, 255": background}
    for number, (levels, array) in enumerate(found.items()):
        with pytest.raises(ValueError, match=f"but got {levels} on more than 1 % of the pixels each, .* up to 255"):
            LoadMask()(save(tmp_path / f"{number}{suffix}", array))
    with pytest.raises(ValueError, match="but got 0, 257, 65535 on"):
        LoadMask()(save(tmp_path / f"16{suffix}", ring.astype(np.uint16) * 257))
    rare = (disc() * 255).astype(np.uint8)
    rare[0, :30] = 1  # of 3072 pixels less than 1 %
    np.testing.assert_array_equal(loaded(save(tmp_path / f"rare{suffix}", rare)), disc())


def test_smooth_edges_are_no_third_class(tmp_path):
    large = Image.fromarray((np.kron(disc(), np.ones((8, 8))) * 255).astype(np.uint8))
    values = np.asarray(large.resize((256, 192), Image.Resampling.BILINEAR))
    assert len(np.unique(values)) > 3
    np.testing.assert_array_equal(loaded(save(tmp_path / "a.png", values)), values > 127)
    values = (disc() * 255).astype(np.uint8)
    values[0, :30] = 128  # of 3072 pixels less than 1 %
    np.testing.assert_array_equal(loaded(save(tmp_path / "b.png", values)), values > 127)
    values[0, :31] = 128
    with pytest.raises(ValueError, match="but got 0, 128, 255 on"):
        LoadMask()(save(tmp_path / "c.png", values))
    assert loaded(save(tmp_path / "c.jpg", values)).any()  # lossy: its threshold stays


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
@pytest.mark.parametrize("other", [(0, 255, 0), (0, 0, 255), (255, 255, 255)])
def test_classes_in_colours_are_not_merged(tmp_path, suffix, other):
    colours = disc()[..., None] * np.array((255, 0, 0), np.uint8)
    np.testing.assert_array_equal(loaded(save(tmp_path / f"one{suffix}", colours, quality=95)), disc())
    colours[14:26, 24:36] = other
    with pytest.raises(ValueError, match=r"a mask of one colour on black, but got the colours .* in .*two"):
        LoadMask()(save(tmp_path / f"two{suffix}", colours, quality=95))


def test_few_pixels_of_a_second_colour_and_a_coloured_background(tmp_path):
    colours = disc()[..., None] * np.array((255, 0, 0), np.uint8)
    colours[20, 30] = (255, 100, 0)
    with pytest.raises(ValueError, match=r"got the colours \(255, 0, 0\) and \(255, 100, 0\)"):
        LoadMask()(save(tmp_path / "small.png", colours))
    background = np.where(disc()[..., None], (255, 0, 0), (0, 0, 255)).astype(np.uint8)
    with pytest.raises(ValueError, match=r"got the colours \(0, 0, 255\) and \(255, 0, 0\)"):
        LoadMask()(save(tmp_path / "background.png", background))


def test_smooth_edges_of_one_colour(tmp_path):
    colours = np.kron(disc()[..., None], np.ones((4, 4, 1))) * np.array((255, 200, 0))
    smooth = Image.fromarray(colours.astype(np.uint8)).resize((64, 48), Image.Resampling.BILINEAR)
    assert (loaded(save(tmp_path / "a.png", np.asarray(smooth))) != disc()).mean() < 0.02


def test_two_values_in_the_upper_half_are_refused(tmp_path):
    np.testing.assert_array_equal(loaded(save(tmp_path / "a.png", disc() * np.uint8(254))), disc())
    for low, high in ((254, 255), (200, 255)):
        array = np.where(disc(), high, low).astype(np.uint8)
        for number, values in enumerate((array, array[:, ::-1], np.where(np.eye(48, 64), high, low).astype(np.uint8))):
            with pytest.raises(ValueError, match=f"one in the lower half of the range, but got {low}, {high} in"):
                LoadMask()(save(tmp_path / f"{low}_{number}.png", values))
