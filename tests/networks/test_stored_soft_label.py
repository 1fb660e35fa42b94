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
from monai.data import MetaTensor
from monai.transforms import (
    Compose,
    RandAffined,
    RandFlipd,
    RandRotate90d,
    RandRotated,
    RandSpatialCropd,
    SpatialPadd,
)

from monai_kd.networks import StoredSoftLabel, Teacher
from monai_kd.networks.soft_label import as_logits, as_soft_label

KEYS = ["image", "label", "soft_label"]
MODES = ["bilinear", "nearest", "bilinear"]


def item(classes: int = 3, size: int = 16) -> dict[str, torch.Tensor]:
    """A soft label that is right everywhere, and an image from which it can be told."""
    generator = torch.Generator().manual_seed(0)
    label = torch.randint(max(2, classes), (1, size, size), generator=generator).float()
    logits = torch.rand(max(2, classes), size, size, generator=generator)
    soft_label = logits.scatter_add(0, label.long(), torch.ones_like(logits)).softmax(0)
    image = torch.cat([label, soft_label])
    soft_label = soft_label[1:] if classes == 1 else soft_label
    values = {"image": image, "label": label, "soft_label": soft_label}
    return {key: MetaTensor(value) for key, value in values.items()}


def heard(soft_label: torch.Tensor) -> torch.Tensor:
    """What a student is told of one soft label."""
    return as_soft_label(Teacher(StoredSoftLabel(), image_key="soft_label")({"soft_label": soft_label[None]}).logits)[0]


@pytest.mark.parametrize("classes", [1, 2, 4])
def test_stored_probabilities_come_through(classes):
    soft_label = item(classes)["soft_label"]
    torch.testing.assert_close(heard(soft_label), soft_label.as_tensor(), atol=1e-6, rtol=1e-5)


def test_needs_its_entry_and_no_image():
    teacher = Teacher(StoredSoftLabel(), image_key="soft_label")
    assert teacher.image_keys == {"soft_label"}
    assert list(teacher.parameters()) == []
    assert list(teacher.network.state_dict()) == []


def test_moves_with_image_and_label_to_the_last_bit():
    """Flips, crops and turns put pixels elsewhere and mix none."""
    transform = Compose([
        RandFlipd(KEYS, prob=0.5, spatial_axis=0),
        RandRotate90d(KEYS, prob=0.7),
        RandSpatialCropd(KEYS, roi_size=(10, 12), random_size=False),
    ])  # fmt: skip
    transform.set_random_state(3)
    for _ in range(5):
        moved = transform(item())
        assert torch.equal(moved["image"][0], moved["label"][0])
        assert torch.equal(moved["image"][1:].as_tensor(), moved["soft_label"].as_tensor())
        assert torch.equal(heard(moved["soft_label"]).argmax(0), moved["label"][0].long().as_tensor())


@pytest.mark.parametrize("padding_mode", ["zeros", "border"])
@pytest.mark.parametrize("classes", [1, 3])
def test_interpolated_and_padded_soft_labels_are_distributions(classes, padding_mode):
    transform = Compose([
        RandRotated(KEYS, prob=1, range_x=0.7, mode=MODES, padding_mode=padding_mode),
        RandAffined(KEYS, prob=1, scale_range=0.3, mode=MODES, padding_mode=padding_mode),
    ])  # fmt: skip
    transform.set_random_state(0)
    moved = transform(item(classes))
    soft_label = heard(moved["soft_label"])
    if classes > 1:
        torch.testing.assert_close(soft_label.sum(0), torch.ones(16, 16))
        outside = moved["soft_label"].sum(0) < 1e-6
        assert outside.any() == (padding_mode == "zeros")
        assert (moved["label"][0][outside] == 0).all()
        assert (soft_label[0][outside] == 1).all()
        inside = (moved["soft_label"].sum(0) - 1).abs() < 1e-5
        torch.testing.assert_close(soft_label[:, inside], moved["soft_label"].as_tensor()[:, inside], atol=1e-5, rtol=0)
    assert ((soft_label >= 0) & (soft_label <= 1)).all()


def test_padding_is_background_like_the_label():
    padded = SpatialPadd(KEYS, (20, 20))(item())
    soft_label = heard(padded["soft_label"])
    assert torch.equal(soft_label.argmax(0), padded["label"][0].long().as_tensor())
    assert soft_label[:, 0, 0].tolist() == pytest.approx([1, 0, 0])


@pytest.mark.parametrize("lacking", [0.001, 0.1, 0.5, 0.9])
def test_what_comes_from_outside_of_the_image_is_background(lacking):
    """A pixel that is interpolated between the image and padding."""
    edge = (1 - lacking) * torch.tensor([0.1, 0.7, 0.2]).view(3, 1, 1)
    expected = edge.flatten() + torch.tensor([lacking, 0, 0])
    torch.testing.assert_close(heard(edge).flatten(), expected, atol=1e-6, rtol=0)


def test_values_that_cubic_interpolation_overshoots_are_cut():
    wild = torch.tensor([[1.1], [-0.05], [-0.05]]).view(3, 1, 1)
    assert heard(wild).flatten().tolist() == pytest.approx([1, 0, 0], abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_precision(dtype):
    soft_label = item()["soft_label"].as_tensor()
    logits = StoredSoftLabel()(soft_label.to(dtype)[None])
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, as_logits(soft_label[None]), atol=0.05, rtol=0)


@pytest.mark.parametrize("classes", [8, 19])
def test_rounding_gives_class_0_no_pixel(classes):
    generator = torch.Generator().manual_seed(0)
    top = torch.randint(1, classes, (1, 1, 64, 64), generator=generator)
    logits = -torch.rand(1, classes, 64, 64, generator=generator)
    logits[:, 0] = -1e-6
    logits = logits.scatter(1, top, 0.0)
    soft_label = logits.softmax(1)
    assert (soft_label.sum(1) < 1).any()
    assert torch.equal(heard(soft_label[0]).argmax(0), soft_label[0].argmax(0))
