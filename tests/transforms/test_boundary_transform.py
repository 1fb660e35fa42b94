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
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.bundle import ConfigParser
from monai.data import CacheDataset, DataLoader, Dataset, MetaTensor, create_test_image_2d, create_test_image_3d
from monai.transforms import Compose, RandFlipd, ScaleIntensityd

from monai_kd.transforms import RandBoundaryTransform, RandBoundaryTransformd

few = settings(max_examples=40, deadline=None)


def numbered(*shape):
    """An image whose pixels are all different, so that each can be traced."""
    return torch.arange(float(np.prod(shape))).reshape(shape)


def disc(size=15, radius=6, spatial_dims=2):
    grid = np.stack(np.meshgrid(*[np.arange(size) - size // 2] * spatial_dims, indexing="ij"))
    return torch.from_numpy(((grid**2).sum(0) <= radius**2)[None].astype(np.int64))


def distances(mask):
    """From each pixel of the mask to the nearest pixel of the image outside, by a loop."""
    outside = np.argwhere(~mask)
    distance = np.zeros(mask.shape)
    for pixel in np.argwhere(mask):
        distance[tuple(pixel)] = np.sqrt(((outside - pixel) ** 2).sum(1)).min()
    return distance


def multiset(image, mask):
    """The pixels under a mask, each with all its channels, in sorted order."""
    return sorted(map(tuple, image.flatten(1)[:, mask.flatten()].T.tolist()))


@pytest.mark.parametrize("spatial_dims", [2, 3])
@pytest.mark.parametrize("width", [1, 1.5, 2, 3])
@pytest.mark.parametrize("fraction", [0.3, 0.5, 1.0])
def test_equal_swap_of_band_and_interior(spatial_dims, width, fraction):
    label = disc(11, 4.5, spatial_dims)
    image = numbered(2, *label.shape[1:])
    changed = RandBoundaryTransform(width, fraction).set_random_state(0)(image, label)
    distance = distances(label[0].numpy().astype(bool))
    band, interior = (distance > 0) & (distance <= width), distance > width
    moved = (changed != image).any(0).numpy()
    expected = int(np.ceil(fraction * min(band.sum(), interior.sum())))
    assert expected > 0
    assert (moved & band).sum() == (moved & interior).sum() == moved.sum() / 2 == expected
    source = (changed[0, torch.from_numpy(moved)]).long().numpy()  # where each came from
    assert (band.ravel()[source] == interior[moved]).all()


@few
@given(
    seed=st.integers(0, 10**6),
    channels=st.integers(1, 4),
    spatial=st.lists(st.integers(1, 9), min_size=2, max_size=3).map(tuple),
    classes=st.integers(1, 3),
    width=st.sampled_from([1, 2, 5]),
    fraction=st.sampled_from([0.01, 0.5, 1.0]),
)
def test_each_class_keeps_its_pixels_and_the_background_its_places(seed, channels, spatial, classes, width, fraction):
    generator = torch.Generator().manual_seed(seed)
    blocks = torch.randint(0, classes + 1, [1, 1, *(-(-size // 4) for size in spatial)], generator=generator)
    label = torch.nn.functional.interpolate(blocks.float(), [4 * n for n in blocks.shape[2:]])[0]
    label = label[tuple(slice(None, size) for size in (1, *spatial))]  # pieces of 4 pixels, some of one pixel
    image = numbered(channels, *spatial)
    changed = RandBoundaryTransform(width, fraction).set_random_state(seed)(image, label)
    assert torch.equal(changed[:, label[0] == 0], image[:, label[0] == 0])
    for number in range(1, classes + 1):
        assert multiset(changed, label == number) == multiset(image, label == number)


def test_inner_classes_swap_within_themselves():
    label = disc(21, 9) + disc(21, 4)
    image = numbered(1, 21, 21)
    changed = RandBoundaryTransform(1, 1.0)(image, label)
    for number in (1, 2):
        inside = label == number
        assert (changed != image)[inside].any()
        assert multiset(changed, inside) == multiset(image, inside)


@pytest.mark.parametrize(
    "label",
    [
        torch.zeros(1, 8, 8),
        torch.ones(1, 8, 8),
        torch.nn.functional.pad(torch.ones(1, 2, 4), (2, 2, 3, 3)),
        torch.nn.functional.pad(torch.ones(1, 1, 1), (4, 3, 4, 3)),
    ],
    ids=["no lesion", "nothing but lesion", "thinner than the band", "one pixel"],
)
def test_without_band_or_interior_nothing_changes(label):
    image = numbered(3, 8, 8)
    assert torch.equal(RandBoundaryTransform(1, 1.0)(image, label), image)


def test_wide_band_leaves_no_interior():
    image, label = numbered(1, 15, 15), disc()
    assert torch.equal(RandBoundaryTransform(7)(image, label), image)
    assert not torch.equal(RandBoundaryTransform(6)(image, label), image)


def test_edge_of_the_image_is_no_boundary():
    label = torch.zeros(1, 9, 9)
    label[..., :6] = 1  # a lesion that three edges cut
    moved = RandBoundaryTransform(1, 1.0)(numbered(1, 9, 9), label) != numbered(1, 9, 9)
    assert moved[..., 5].all()  # the band
    assert moved[..., :5].sum() == 9


def test_draw_follows_the_seed():
    image, label = numbered(3, 15, 15), disc()
    transform = RandBoundaryTransform(2)
    first = transform.set_random_state(1)(image, label)
    again = transform(image, label)
    assert not torch.equal(first, again)
    assert torch.equal(transform.set_random_state(1)(image, label), first)
    assert not torch.equal(transform.set_random_state(2)(image, label), first)


def test_every_pixel_of_band_and_interior_gets_its_turn():
    image, label = numbered(1, 15, 15), disc()
    transform = RandBoundaryTransform(2, 0.5).set_random_state(0)
    moved = torch.stack([transform(image, label) != image for _ in range(100)]).any(0)
    assert torch.equal(moved, label.bool())


def test_prob_is_the_share_of_changed_images():
    image, label = numbered(1, 15, 15), disc()
    transform = RandBoundaryTransform(2, prob=0.3).set_random_state(0)
    share = np.mean([not torch.equal(transform(image, label), image) for _ in range(300)])
    assert 0.22 < share < 0.38
    assert torch.equal(RandBoundaryTransform(2, prob=0.0)(image, label), image)


def test_unchanged_image_after_a_changed_one():
    image, label = numbered(1, 15, 15), disc()
    transform = RandBoundaryTransform(2)
    assert not torch.equal(transform(image, label), image)
    assert torch.equal(transform(image, torch.zeros_like(label)), image)


def test_keys_exchange_the_same_pixels():
    label = disc()
    data = {"image": numbered(3, 15, 15), "other": numbered(1, 15, 15), "label": label}
    transform = RandBoundaryTransformd(("image", "other"), width=2).set_random_state(0)
    before = {key: value.clone() for key, value in data.items()}
    changed = transform(data)
    assert torch.equal(changed["image"][0], changed["other"][0])
    assert changed["label"] is label
    assert all(torch.equal(data[key], before[key]) for key in data)  # nothing is written


def test_array_and_dictionary_agree():
    image, label = numbered(3, 15, 15), disc()
    expected = RandBoundaryTransform(2).set_random_state(5)(image, label)
    changed = RandBoundaryTransformd("image", width=2).set_random_state(5)({"image": image, "label": label})
    assert torch.equal(changed["image"], expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float16, np.float32, np.float64])
def test_type_of_the_image_is_kept(dtype):
    image = (np.random.RandomState(0).rand(3, 15, 15) * 255).astype(dtype)
    changed = RandBoundaryTransform(2).set_random_state(0)(image, disc().numpy().astype(bool))
    assert changed.numpy().dtype == dtype
    assert (changed.numpy() != image).any()  # and the array that was given is not written
    assert multiset(changed, disc()) == multiset(torch.from_numpy(image), disc())


def test_metadata_are_kept():
    image = MetaTensor(numbered(1, 15, 15), affine=torch.diag(torch.tensor([2.0, 2.0, 1.0])), meta={"a": 1})
    changed = RandBoundaryTransform(2)(image, MetaTensor(disc()))
    assert isinstance(changed, MetaTensor)
    assert changed.meta["a"] == 1
    assert torch.equal(changed.affine, image.affine)


def test_strided_image_gives_the_same():
    image, label = torch.rand(3, 15, 15), disc()
    expected = RandBoundaryTransform(2).set_random_state(0)(image, label)
    strided = image.permute(1, 2, 0).contiguous().permute(2, 0, 1)
    assert torch.equal(RandBoundaryTransform(2).set_random_state(0)(strided, label), expected)


@pytest.mark.parametrize(("create", "size"), [(create_test_image_2d, 2), (create_test_image_3d, 3)])
def test_in_a_pipeline_with_seeds(create, size):
    drawn = np.random.RandomState(0)
    image, label = create(*[40] * size, num_seg_classes=2, rad_max=10, channel_dim=0, random_state=drawn)
    image = image + drawn.rand(*image.shape)
    steps = [
        RandFlipd(("image", "label"), prob=0.5),
        RandBoundaryTransformd("image", width=2),
        ScaleIntensityd("image"),
    ]
    pipeline = Compose(steps)
    pipeline.set_random_state(3)
    first = pipeline({"image": image, "label": label})
    pipeline.set_random_state(3)
    second = pipeline({"image": image, "label": label})
    assert torch.equal(first["image"], second["image"])
    assert not torch.equal(first["image"], pipeline({"image": image, "label": label})["image"])


def test_is_drawn_anew_behind_a_cache():
    data = [{"image": numbered(1, 15, 15), "label": disc()}]
    dataset = CacheDataset(data, Compose([RandBoundaryTransformd("image", width=2)]), progress=False)
    assert not torch.equal(dataset[0]["image"], dataset[0]["image"])


def test_workers_draw_differently():
    data = [{"image": numbered(1, 15, 15), "label": disc()}] * 2
    loader = DataLoader(Dataset(data, RandBoundaryTransformd("image", width=2)), batch_size=1, num_workers=2)
    first, second = (batch["image"] for batch in loader)
    assert not torch.equal(first, second)


def test_bundle_config_and_pickle():
    config = {"_target_": "monai_kd.transforms.RandBoundaryTransformd", "keys": "image", "width": 2}
    transform = ConfigParser({"t": config}).get_parsed_content("t").set_random_state(0)
    copied = pickle.loads(pickle.dumps(transform))
    data = {"image": numbered(1, 15, 15), "label": disc()}
    assert torch.equal(transform(data)["image"], copied(data)["image"])


def test_missing_keys():
    assert RandBoundaryTransformd("image", allow_missing_keys=True)({"label": 1}) == {"label": 1}
    with pytest.raises(KeyError, match="label"):
        RandBoundaryTransformd("image")({"image": numbered(1, 8, 8)})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 0}, "`width` must be a finite number of pixels, at least 1, but got 0"),
        ({"width": float("inf")}, "`width` must be a finite number of pixels, at least 1, but got inf"),
        ({"fraction": 0}, "`fraction` must be above 0 and at most 1, but got 0"),
        ({"fraction": 1.5}, "`fraction` must be above 0 and at most 1, but got 1.5"),
        ({"prob": -0.1}, "`prob` must be from 0 to 1, but got -0.1"),
    ],
)
def test_guards(arguments, message):
    with pytest.raises(ValueError, match=message):
        RandBoundaryTransform(**arguments)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (None, "`label` must be given where pixels are drawn, but got None"),
        (torch.zeros(1, 8, 9), r"`label` must have the spatial size of `img`, but got \(1, 8, 9\) and \(3, 8, 8\)"),
        (torch.zeros(2, 8, 8), r"`label` must be of shape \(1, H, W\).*but got \(2, 8, 8\); a one-hot label wants"),
        (torch.full((1, 8, 8), 0.25), "`label` must hold whole class indices, but got 0.25; resize labels"),
    ],
)
def test_labels_that_do_not_fit_are_refused(label, message):
    with pytest.raises(ValueError, match=message):
        RandBoundaryTransform()(numbered(3, 8, 8), label)


def test_second_image_of_another_size_is_refused():
    data = {"image": numbered(3, 15, 15), "other": numbered(3, 16, 16), "label": disc()}
    with pytest.raises(ValueError, match="`label` must have the spatial size of `img`"):
        RandBoundaryTransformd(("image", "other"))(data)


def test_label_in_bfloat16():
    image, label = numbered(2, 15, 15), disc()
    changed = RandBoundaryTransform(2).set_random_state(0)(image.bfloat16(), label.bfloat16())
    assert changed.dtype == torch.bfloat16
    expected = RandBoundaryTransform(2).set_random_state(0)(image.bfloat16(), label)
    assert torch.equal(changed, expected)
    assert not torch.equal(changed, image.bfloat16())


def test_image_without_a_label_stays_as_it_is_where_keys_may_miss():
    image = torch.rand(3, 8, 8)
    loose = RandBoundaryTransformd(prob=1.0, width=2, allow_missing_keys=True)
    assert torch.equal(loose({"image": image})["image"], image)
    with pytest.raises(KeyError, match="label"):
        RandBoundaryTransformd(prob=1.0, width=2)({"image": image})
