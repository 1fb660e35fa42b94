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

"""Any picture and mask is read right, or refused in one line: modes, sizes, turns and ends changed."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from monai_kd.data import endoscopy_cases
from monai_kd.transforms import LoadMaskd, LoadRGBd, SameSized
from tests.transforms.odd_files import read_or_refused

HEIGHT, WIDTH = 12, 16
COLOURS = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
GREY = COLOURS[..., 0]
LESION = np.zeros((HEIGHT, WIDTH), bool)
LESION[3:8, 4:11] = True
# what a viewer does with the EXIF orientation
TURNS: dict[int, Any] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: np.swapaxes(a, 0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: np.swapaxes(a[::-1, ::-1], 0, 1),
    8: lambda a: np.rot90(a),
}


def picture(mode: str) -> tuple[Image.Image, np.ndarray | None]:
    """A picture of a mode, and the RGB in [0, 1] that it shows; None where its range is unknown."""
    grey = np.repeat(GREY[..., None], 3, axis=2) / 255
    if mode == "RGB":
        return Image.fromarray(COLOURS), COLOURS / 255
    if mode == "RGBA":
        return Image.fromarray(np.dstack([COLOURS, GREY])), COLOURS / 255
    if mode == "LA":
        return Image.fromarray(np.dstack([GREY, GREY])), grey
    if mode == "P":
        image = Image.fromarray(GREY)
        image.putpalette([255 - k // 3 for k in range(768)])
        return image, 1 - grey
    if mode == "1":
        return Image.fromarray(LESION), np.repeat(LESION[..., None], 3, axis=2).astype(float)
    if mode == "I;16":
        return Image.fromarray(GREY.astype(np.uint16) * 257), grey
    if mode == "F":
        return Image.fromarray(GREY.astype(np.float32)), None
    if mode == "I":
        return Image.fromarray(GREY.astype(np.int32)), None
    return Image.fromarray(GREY), grey


def stored(folder: Path, image: Image.Image, kind: str, turn: int = 1) -> Path:
    exif = Image.Exif()
    exif[0x0112] = turn
    file = Path(tempfile.mkdtemp(dir=folder)) / f"a.{kind}"
    options = {"quality": 95, "subsampling": 0} if kind == "jpg" else {}
    image.save(file, **options, **({} if kind == "bmp" else {"exif": exif}))
    return file


MODES = {
    "png": ["RGB", "RGBA", "LA", "P", "1", "L", "I;16"],
    "tif": ["RGB", "RGBA", "LA", "P", "1", "L", "I;16", "F", "I"],
    "bmp": ["RGB", "P", "1", "L"],
    "jpg": ["RGB", "L"],
}


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([(kind, mode) for kind in MODES for mode in MODES[kind]]), st.integers(1, 8), st.data())
def test_photograph_is_read_right_or_refused(tmp_path, form, turn, data):
    kind, mode = form
    image, truth = picture(mode)
    turn = 1 if kind == "bmp" else turn
    file = stored(tmp_path, image, kind, turn)
    whole = file.read_bytes()
    damage = data.draw(st.sampled_from(["none", "none", "cut", "bit" if kind == "png" else "none", "behind"]))
    place = data.draw(st.integers(0, len(whole) - 1))
    if damage == "cut":
        file.write_bytes(whole[:place])
    elif damage == "bit":  # of a format with checksums
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << data.draw(st.integers(0, 7))]) + whole[place + 1 :])
    elif damage == "behind":
        file.write_bytes(whole + bytes(place))
    found = read_or_refused(lambda: LoadRGBd("image")({"image": file})["image"], file)
    if damage in ("none", "behind") or truth is None:
        assert (found is None) == (truth is None)
    if found is not None:
        expected = TURNS[turn](truth).transpose(2, 0, 1)
        np.testing.assert_allclose(found, expected, atol=0.15 if kind == "jpg" else 3e-3)


def mask_truth(values: np.ndarray, full: int) -> np.ndarray | None:
    """A mask of two values, one in each half of the range, or of 0 and 1; one pixel may be of another."""
    found = np.unique(values)
    if set(found) <= {0, 1}:
        return values == 1
    levels = np.array([value for value in found if (values == value).sum() > 1])
    above = (levels > full // 2).sum()
    if above > 1 or len(levels) - above > 1 or found[-1] <= full // 2:
        return None
    return None if len(found) > 1 and found[0] > full // 2 else values > full // 2


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["png", "tif", "bmp"]),
    st.sampled_from(["L", "RGB", "red", "P", "I;16"]),
    st.lists(st.sampled_from([0, 0, 1, 2, 100, 127, 128, 250, 254, 255, 255]), min_size=2, max_size=3),
    st.sampled_from([1, 2, 20]),
    st.integers(1, 8),
)
def test_mask_is_read_right_or_refused(tmp_path, kind, mode, values, others, turn):
    grey = np.where(LESION, values[1], values[0]).astype(np.uint16)
    grey.ravel()[:others] = values[-1]
    full = 255
    if mode == "I;16":
        kind, full, grey = ("tif" if kind == "bmp" else kind), 65535, grey * 257
    if mode == "RGB":
        image = Image.fromarray(np.repeat(grey[..., None], 3, axis=2).astype(np.uint8))
    elif mode == "red":
        image = Image.fromarray(np.dstack([grey, 0 * grey, 0 * grey]).astype(np.uint8))
    else:
        image = Image.fromarray(grey if mode == "I;16" else grey.astype(np.uint8))
    if mode == "P":
        image.putpalette([k // 3 for k in range(768)])
    turn = 1 if kind == "bmp" else turn
    file = stored(tmp_path, image, kind, turn)
    full = 255 if mode == "I;16" and grey.max() <= 255 else full
    truth = mask_truth(grey, full)
    found = read_or_refused(lambda: LoadMaskd("label")({"label": file})["label"], file)
    assert (found is None) == (truth is None)
    if truth is not None:
        np.testing.assert_array_equal(found[0], TURNS[turn](truth))


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from([1, 3, 6, 8]), st.sampled_from([1, 3, 6, 8]), st.sampled_from([(12, 16), (16, 12), (12, 15)]))
def test_pair_is_listed_right_or_refused(tmp_path, turn, other, size):
    folder = Path(tempfile.mkdtemp(dir=tmp_path))
    for name in ("images", "masks"):
        (folder / name).mkdir()
    mask = np.zeros(size, np.uint8)
    mask[2:9, 3:7] = 255
    image = stored(tmp_path, picture("RGB")[0], "png", turn).rename(folder / "images" / "a.png")
    label = stored(tmp_path, Image.fromarray(mask), "png", other).rename(folder / "masks" / "a.png")
    shapes = [TURNS[turn](np.zeros((HEIGHT, WIDTH))).shape, TURNS[other](mask).shape]
    same = shapes[0] == shapes[1]
    item = {"image": image, "label": label}
    both = SameSized(["image", "label"])
    loaded = read_or_refused(lambda: both(LoadMaskd("label")(LoadRGBd("image")(item))), label)
    listed = read_or_refused(lambda: endoscopy_cases(folder), folder)
    assert (loaded is not None) == same
    assert (listed is not None) == (same and (turn == other or size != (HEIGHT, WIDTH)))
    if loaded is not None:
        np.testing.assert_array_equal(loaded["label"][0], TURNS[other](mask) > 0)
