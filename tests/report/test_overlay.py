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

import io

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image

from monai_kd.report import OverlayCase, overlay
from monai_kd.report.overlay import LABEL_COLOUR, PREDICTION_COLOUR, _as_seen, _box


def volume(where: tuple[slice, ...] = (slice(4, 9), slice(4, 9), slice(1, 3))) -> tuple[np.ndarray, np.ndarray]:
    image, label = np.random.default_rng(0).random((16, 16, 4)), np.zeros((16, 16, 4), int)
    label[where] = 1
    return image, label


def pixels(picture: bytes, colour: str) -> int:
    """How many pixels have about this colour."""
    array = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB")).astype(int)
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int((np.abs(array - wanted).sum(-1) < 40).sum())


def test_outlines_have_their_colours():
    image, label = volume()
    alone = overlay([OverlayCase("01", image, label)])
    both = overlay([OverlayCase("01", image, label, {"student": np.roll(label, 3, 0)})])
    nothing = overlay([OverlayCase("01", image, label, {"student": 0 * label})])
    legend = pixels(nothing, PREDICTION_COLOUR)
    assert pixels(both, PREDICTION_COLOUR) > legend + 20
    assert pixels(both, LABEL_COLOUR) > pixels(alone, LABEL_COLOUR) > 20


def test_one_row_a_case_and_one_column_a_network():
    image, label = volume()
    predictions = {"teacher": label, "student": label}
    one, two = (overlay([OverlayCase("01", image, label, predictions)] * cases) for cases in (1, 2))
    (width, height), (same, higher) = (Image.open(io.BytesIO(picture)).size for picture in (one, two))
    assert (width, height) == pytest.approx((2.4 * 3 * 110, 3.0 * 110), abs=1)
    assert same == width
    assert higher - height == pytest.approx(2.4 * 110, abs=1)


def test_slice_with_most_label_is_shown():
    """Bright in that slice alone, so that any other would be a black picture."""
    image, label = 0 * volume()[0], volume((slice(4, 6), slice(4, 6), slice(0, 4)))[1]
    image[..., 2], label[4:9, 4:9, 2] = 1, 1
    brightness = [
        np.asarray(
            Image.open(io.BytesIO(overlay([OverlayCase("", image[..., :n], label[..., :n])], (0, 1)))).convert("L")
        )
        for n in (2, 4)
    ]
    assert brightness[1].mean() > brightness[0].mean() + 50


def test_prediction_chooses_the_slice_of_an_empty_label():
    image, label = volume()
    prediction = 0 * label
    prediction[2:12, 2:12, 3] = 1
    picture = overlay([OverlayCase("01", image, 0 * label, {"student": prediction})])
    empty = overlay([OverlayCase("01", image, 0 * label, {"student": 0 * label})])
    assert pixels(picture, PREDICTION_COLOUR) > pixels(empty, PREDICTION_COLOUR) + 20


def test_tensors_with_a_channel_give_the_same_picture():
    image, label = volume()
    plain = overlay([OverlayCase("01", image, label, {"student": label})])
    tensors = [MetaTensor(torch.as_tensor(array)[None]) for array in (image, label, label)]
    assert overlay([OverlayCase("01", *tensors[:2], {"student": tensors[2]})]) == plain


def test_ras_is_lps_turned_round():
    array = np.arange(24).reshape(2, 3, 4)
    assert np.array_equal(_as_seen(array[::-1, ::-1], "RAS"), _as_seen(array, "LPS"))
    assert _as_seen(array, "LPS")[2, 1, 0] == array[1, 2, 0]  # row is y, column is x


def test_margin_cuts_around_all_masks():
    one, two = np.zeros((10, 10)), np.zeros((10, 10))
    one[4, 5], two[6, 1] = 1, 2
    assert _box([one, two], 2) == (slice(2, 9), slice(0, 8))
    assert _box([one, two], None) == _box([0 * one], 2) == (slice(None), slice(None))


@pytest.mark.parametrize(
    ("cases", "axcodes", "message"),
    [
        ([], "LPS", "`cases` must hold at least one case"),
        ([OverlayCase("01", *volume())], "SAR", "`axcodes` must begin with L or R, then P or A, but got 'SAR'"),
        (
            [OverlayCase("01", volume()[0], np.zeros((8, 8, 4)))],
            "LPS",
            r"`label` must have the shape of `image`, but got \(8, 8, 4\)",
        ),
        (
            [OverlayCase("01", *volume()), OverlayCase("02", *volume(), {"student": volume()[1]})],
            "LPS",
            r"`cases` must have the predictions \[\], but got \['student'\] for 02",
        ),
    ],
)
def test_wrong_input_is_refused(cases, axcodes, message):
    with pytest.raises(ValueError, match=message):
        overlay(cases, axcodes=axcodes)
