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
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image

from monai_kd.corrections import AssistantCorrection, SimilarityCorrection, false_pixels
from monai_kd.networks import Teacher
from monai_kd.report import CorrectionCase, correction_cases, correction_figure
from monai_kd.report.correction_figure import EXTRA_COLOUR, MISSED_COLOUR, _displayed
from tests.report.test_overlay import pixels


def make(spatial: tuple[int, ...] = (24, 32), classes: int = 2, channels: int = 3) -> dict[str, Any]:
    """A square lesion; soft labels that miss a corner and have a spot outside, that miss half of it, that are right."""
    label = torch.zeros(1, *spatial)
    label[0, 6:18, 6:18] = classes - 1
    sure = torch.zeros(max(2, classes), *spatial).scatter(0, label.long(), 0.9).clamp(min=0.1 / max(1, classes - 1))
    first = sure.clone()
    first[:, 6:12, 6:12] = sure[:, :1, :1]  # missed
    first[:, 18:22, 20:24] = sure[:, 10:11, 10:11]  # extra
    second = sure.clone()
    second[:, 6:12, 6:9] = sure[:, :1, :1]
    image = torch.rand(channels, *spatial, generator=torch.Generator().manual_seed(0))
    return {"image": image, "label": label, "soft_labels": {"T": first, "TA_f": second, "SC": sure}}


def text_of(monkeypatch, case: CorrectionCase, **kwargs: Any) -> list[str]:
    """The texts below the pictures."""
    from matplotlib.axes import Axes

    found: list[str] = []
    original = Axes.set_xlabel
    monkeypatch.setattr(Axes, "set_xlabel", lambda self, text, **kw: (found.append(text), original(self, text, **kw)))
    correction_figure([case], **kwargs)
    return found


@pytest.mark.parametrize("classes", [1, 2, 3])
def test_counts_are_below_the_steps(monkeypatch, classes):
    case = make(classes=max(2, classes))
    if classes == 1:
        case["soft_labels"] = {name: value[1:] for name, value in case["soft_labels"].items()}
    assert text_of(monkeypatch, CorrectionCase("a", **case)) == ["52 false", "18 false", "0 false"]


def test_false_pixels_have_their_colours():
    case = make()
    steps = case["soft_labels"]
    legend = correction_figure([CorrectionCase("a", case["image"], case["label"], {"SC": steps["SC"]})])
    for name, missed, extra in (("T", 30, 10), ("TA_f", 15, 0)):
        picture = correction_figure([CorrectionCase("a", case["image"], case["label"], {name: steps[name]})])
        more = [pixels(picture, colour) - pixels(legend, colour) for colour in (MISSED_COLOUR, EXTRA_COLOUR)]
        assert more[0] > missed
        assert (more[1] > extra) if extra else more[1] == 0


class TestCases:
    """Teacher and corrections asked, by hand: a network that says the sign of the first channel."""

    @staticmethod
    def network(sign: float) -> torch.nn.Conv2d:
        network = torch.nn.Conv2d(3, 2, 1, bias=False)
        network.weight.data = torch.tensor([[-sign, 0.0, 0.0], [sign, 0.0, 0.0]])[..., None, None]
        return network

    @staticmethod
    def items() -> list[dict[str, Any]]:
        generator = torch.Generator().manual_seed(0)
        photos = torch.rand(2, 3, 8, 6, generator=generator)
        labels = (photos[:, :1] > 0.7).float()
        return [
            {"image": MetaTensor(photo - 0.5), "photo": MetaTensor(photo), "label": label, "case": f"ISIC_{number}"}
            for number, (photo, label) in enumerate(zip(photos, labels))
        ]

    def test_values_of_each_step(self):
        items = self.items()
        corrections = {"assistant_f": AssistantCorrection(self.network(-1)), "similarity": SimilarityCorrection()}
        cases = correction_cases(items, Teacher(self.network(1)), corrections, picture_key="photo")
        assert [case.name for case in cases] == ["ISIC_0", "ISIC_1"]
        for case, item in zip(cases, items, strict=True):
            assert torch.equal(case.image, item["photo"].as_tensor())  # as it was before it was normalised
            assert torch.equal(case.label, item["label"])
            first = (item["image"].as_tensor()[:1] * 2).sigmoid()
            wrong = ((first > 0.5) != (item["label"] > 0)).float()
            assert 0 < wrong.sum() < wrong.numel()
            torch.testing.assert_close(case.soft_labels["teacher"][1:], first)
            torch.testing.assert_close(case.soft_labels["assistant_f"][1:], wrong * (1 - first) + (1 - wrong) * first)
            last = false_pixels(case.soft_labels["similarity"][None], item["label"][None])
            assert list(case.soft_labels) == ["teacher", "assistant_f", "similarity"]
            assert not last.any()

    def test_without_corrections_or_names(self):
        items = [{key: value for key, value in item.items() if key != "case"} for item in self.items()]
        cases = correction_cases(items, Teacher(self.network(1)))
        assert [(case.name, list(case.soft_labels)) for case in cases] == [("0", ["teacher"]), ("1", ["teacher"])]
        assert correction_figure(cases)[1:4] == b"PNG"


def test_one_row_a_case_and_one_column_a_step():
    case = CorrectionCase("a", **make())
    one, two = (Image.open(io.BytesIO(correction_figure([case] * count))).size for count in (1, 2))
    assert one == pytest.approx((2.0 * 5 * 110, 2.8 * 110), abs=1)
    assert two[1] - one[1] == pytest.approx(2.3 * 110, abs=1)


def test_slice_of_a_volume_with_most_false_pixels(monkeypatch):
    case = make((24, 32, 5), channels=1)
    for name, value in case["soft_labels"].items():
        right = case["soft_labels"]["SC"]
        kept = right.clone()
        kept[..., 3] = value[..., 3]
        case["soft_labels"][name] = kept
    assert text_of(monkeypatch, CorrectionCase("a", **case), axcodes="RAS") == ["52 false", "18 false", "0 false"]
    flat = {key: value[..., 3] for key, value in case.items() if key != "soft_labels"}
    flat["soft_labels"] = {name: value[..., 3] for name, value in case["soft_labels"].items()}
    whole = correction_figure([CorrectionCase("", **case)], axcodes="RAS")
    single = correction_figure([CorrectionCase("", **flat)], axcodes="RAS")
    assert pixels(whole, MISSED_COLOUR) == pytest.approx(pixels(single, MISSED_COLOUR), rel=0.1)


def test_all_right_volume_is_drawn_at_its_label(monkeypatch):
    case = make((24, 32, 5), channels=1)
    case["soft_labels"] = {"SC": case["soft_labels"]["SC"]}
    case["label"][..., [0, 1, 3, 4]] = 0
    case["soft_labels"]["SC"] = torch.cat([1 - case["label"], case["label"]]) * 0.8 + 0.1
    from matplotlib.axes import Axes

    names: list[str] = []
    original = Axes.set_ylabel
    monkeypatch.setattr(Axes, "set_ylabel", lambda self, text, **kw: (names.append(text), original(self, text, **kw)))
    correction_figure([CorrectionCase("a", **case)])
    assert names == ["a, slice 2"]


def test_normalised_images_are_scaled_and_others_are_not():
    image = np.random.default_rng(0).random((8, 8, 3))
    assert np.array_equal(_displayed(image), image)
    scaled = _displayed((image - 0.5) / 0.2)
    assert scaled.min() == 0
    assert scaled.max() == 1
    assert _displayed(image[..., :1]).shape == (8, 8, 3)


def test_metatensors_and_arrays_give_the_same_picture():
    case = make()
    plain = correction_figure([CorrectionCase("a", **case)])
    meta = {"image": MetaTensor(case["image"]), "label": MetaTensor(case["label"])}
    steps = {name: value.numpy() for name, value in case["soft_labels"].items()}
    assert correction_figure([CorrectionCase("a", **meta, soft_labels=steps)]) == plain


def test_wrong_input_is_refused():
    case = make()
    with pytest.raises(ValueError, match="`cases` must hold at least one case"):
        correction_figure([])
    other = CorrectionCase("b", case["image"], case["label"], {"T": case["soft_labels"]["T"]})
    with pytest.raises(
        ValueError, match=r"must have the same soft labels, but got \['T'\] for b and \['T', 'TA_f', 'SC'\]"
    ):
        correction_figure([CorrectionCase("a", **case), other])
    with pytest.raises(ValueError, match=r"`image` must have the spatial size of `label`, but got \(3, 8, 8\) and"):
        correction_figure([CorrectionCase("a", torch.rand(3, 8, 8), case["label"], case["soft_labels"])])
    steps = {name: 5 * value for name, value in case["soft_labels"].items()}
    with pytest.raises(ValueError, match="`soft_label` must hold probabilities"):
        correction_figure([CorrectionCase("a", case["image"], case["label"], steps)])
