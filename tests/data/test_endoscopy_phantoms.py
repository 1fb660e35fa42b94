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

import csv
import time

import numpy as np
import pytest
import torch
from monai.losses import DiceCELoss
from monai.metrics import DiceMetric
from monai.networks.nets import UNet
from PIL import Image

from monai_kd.data import endoscopy_cases, endoscopy_phantom, write_endoscopy_phantoms
from monai_kd.transforms import LoadMask


def best_threshold_dice(values, labels):
    """The Dice of the one threshold that suits all frames best, from either side."""
    scores = []
    for threshold in np.quantile(values, np.linspace(0.02, 0.98, 25)):
        for found in (values > threshold, values < threshold):
            scores.append(np.mean([2 * (f & m).sum() / (f.sum() + m.sum()) for f, m in zip(found, labels)]))
    return max(scores)


def test_is_pink_with_polyps_that_no_threshold_finds():
    frames = [endoscopy_phantom(seed, size=(64, 80)) for seed in range(20)]
    images = np.stack([frame.image for frame in frames]).astype(float)
    labels = np.stack([frame.label for frame in frames]) > 0
    assert images.shape == (20, 64, 80, 3)
    assert frames[0].image.dtype == frames[0].label.dtype == np.uint8
    share = labels.mean(axis=(1, 2))
    assert share.min() > 0.005
    assert share.max() < 0.4
    assert 0.04 < share.mean() < 0.15
    red, green, blue = images[images.sum(axis=-1) > 120].mean(axis=0)
    assert red > 1.2 * green > 1.2 * blue
    for values in (images.mean(axis=-1), images[..., 0] - images[..., 1], images[..., 2] / (images[..., 1] + 1)):
        assert best_threshold_dice(values, labels) < 0.35


def test_has_a_dark_lumen_reflections_and_cut_corners():
    for seed in range(6):
        image, label = endoscopy_phantom(seed, size=96)
        assert image.shape == (96, 120, 3)
        assert image[[0, 0, -1, -1], [0, -1, 0, -1]].max() < 10
        assert label[[0, 0, -1, -1], [0, -1, 0, -1]].max() == 0
        assert (image.min(axis=-1) > 160).sum() > 5  # white
        seen = image.max(axis=-1)[image.max(axis=-1) > 15]
        assert np.quantile(seen, 0.01) < 0.6 * np.median(seen)


def test_number_of_polyps():
    for seed in range(30):
        assert endoscopy_phantom(seed, size=48, num_polyps=0).label.max() == 0
        one, two = (endoscopy_phantom(seed, size=48, num_polyps=number).label for number in (1, 2))
        assert one.max() == 255
        assert np.all(two >= one)  # the second is added to the first


def test_equal_seeds_equal_frames():
    one, same, other = endoscopy_phantom(5, 48), endoscopy_phantom(5, 48), endoscopy_phantom(6, 48)
    np.testing.assert_array_equal(one.image, same.image)
    np.testing.assert_array_equal(one.label, same.label)
    assert not np.array_equal(one.image, other.image)


def test_views_show_one_scene_from_elsewhere():
    for seed in range(8):
        frames = [endoscopy_phantom(seed, 64, view=view) for view in range(3)]
        assert not np.array_equal(frames[0].image, frames[1].image)
        colours = [frame.image[frame.label > 0].mean(axis=0) for frame in frames]
        others = endoscopy_phantom(seed + 100, 64)
        near = np.abs(colours[0] - colours[1]).sum()
        assert near < 40
        areas = [(frame.label > 0).sum() for frame in frames]
        assert max(areas) < 3 * min(areas)
        assert not np.array_equal(others.label, frames[0].label)


def test_size_changes_the_pixels_only():
    small, large = (endoscopy_phantom(3, (size, size), num_polyps=1) for size in (64, 192))
    shrunk = np.asarray(Image.fromarray(large.label).resize((64, 64))) > 127
    assert 2 * (shrunk & (small.label > 0)).sum() / (shrunk.sum() + (small.label > 0).sum()) > 0.93
    colours = np.asarray(Image.fromarray(large.image).resize((64, 64))).astype(float)
    assert np.corrcoef(colours.ravel(), small.image.astype(float).ravel())[0, 1] > 0.9


def test_global_random_state_is_left_alone():
    np.random.seed(0)
    before = np.random.get_state()[1].copy(), torch.get_rng_state()
    endoscopy_phantom(0, 48)
    np.testing.assert_array_equal(np.random.get_state()[1], before[0])
    assert torch.equal(torch.get_rng_state(), before[1])


def test_layouts_have_the_formats_of_the_originals(tmp_path):
    for layout, formats in {
        "kvasir": ("JPEG", "JPEG"),
        "clinicdb": ("TIFF", "TIFF"),
        "folder": ("JPEG", "PNG"),
    }.items():
        write_endoscopy_phantoms(tmp_path / layout, layout, num_frames=3, size=64, progress=False)
        for case in endoscopy_cases(tmp_path / layout):
            for key, kind in zip(("image", "label"), formats):
                with Image.open(case[key]) as image:
                    assert image.format == kind
                    assert image.size == (80, 64)
    noisy = np.unique(np.asarray(Image.open(endoscopy_cases(tmp_path / "kvasir")[0]["label"])))
    assert len(noisy) > 2  # masks in JPEG, as published
    same = [LoadMask()(endoscopy_cases(tmp_path / layout)[0]["label"]) for layout in ("clinicdb", "folder")]
    assert torch.equal(same[0], same[1])


def test_sequences_and_empty_frames(tmp_path):
    root = write_endoscopy_phantoms(
        tmp_path, "folder", num_frames=12, size=48, frames_per_sequence=3, empty_fraction=0.5, progress=False
    )
    cases = endoscopy_cases(root, sequences=root / "sequences.csv")
    assert [case["sequence"] for case in cases] == [str(number // 3 + 1) for number in range(12)]
    empty = [not LoadMask()(case["label"]).any() for case in cases]
    assert len(set(empty)) == 2
    for first in range(0, 12, 3):
        assert len(set(empty[first : first + 3])) == 1  # a video shows a polyp or none


def test_frame_does_not_depend_on_the_number_of_frames(tmp_path):
    few, many = (
        write_endoscopy_phantoms(tmp_path / str(count), "folder", num_frames=count, size=48, progress=False)
        for count in (1, 3)
    )
    assert (few / "images" / "1.jpg").read_bytes() == (many / "images" / "1.jpg").read_bytes()


def test_pranet_sets_share_no_scene(tmp_path):
    root = write_endoscopy_phantoms(tmp_path, "pranet", num_frames=20, size=48, progress=False)
    cases = endoscopy_cases(root)
    assert sum(case["dataset"] == "TrainDataset" for case in cases) == 10
    labels = [LoadMask()(case["label"]).numpy().tobytes() for case in cases]
    assert len(set(labels)) == 20
    with open(root / "TrainDataset" / "sequences.csv", newline="") as stream:
        assert [row["sequence"] for row in csv.DictReader(stream)] == [str(n // 2 + 1) for n in range(10)]


def test_is_quick():
    endoscopy_phantom(0, size=96)
    start = time.process_time()
    endoscopy_phantom(0, size=96)
    assert time.process_time() - start < 1.0  # 0.02 to 0.05 s on one core


@pytest.mark.slow
def test_small_network_learns_it():
    frames = [endoscopy_phantom(seed, (48, 48)) for seed in range(230)]
    image = torch.from_numpy(np.stack([frame.image for frame in frames])).permute(0, 3, 1, 2) / 255 - 0.5
    label = torch.from_numpy(np.stack([frame.label for frame in frames]))[:, None] / 255
    network = UNet(2, 3, 1, (16, 32, 64, 128), (2, 2, 2), num_res_units=1)
    optimizer, loss = torch.optim.AdamW(network.parameters(), 0.006), DiceCELoss(sigmoid=True)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.006, total_steps=200)
    for _ in range(200):
        at, turns = torch.randint(0, 200, (8,)), int(torch.randint(0, 4, ()))
        optimizer.zero_grad()
        loss(network(torch.rot90(image[at], turns, (2, 3))), torch.rot90(label[at], turns, (2, 3))).backward()
        optimizer.step()
        scheduler.step()
    with torch.no_grad():
        dice = DiceMetric()((network.eval()(image[200:]) > 0).float(), label[200:])
    assert dice.nanmean() > 0.35  # 0.50; with 300 frames and three times the steps 0.72


def test_guards(tmp_path):
    with pytest.raises(ValueError, match="`size` must be at least 48, but got 32"):
        endoscopy_phantom(0, size=32)
    with pytest.raises(ValueError, match="`num_polyps` must be 0, 1 or 2, but got 3"):
        endoscopy_phantom(0, num_polyps=3)
    with pytest.raises(ValueError, match="one of pranet, kvasir, clinicdb, endocv2022, folder, but got 'etis'"):
        write_endoscopy_phantoms(tmp_path, "etis")
    with pytest.raises(ValueError, match=r"`num_frames` must be at least 1 \(10 for pranet\).* but got 9, 2 and 0.0"):
        write_endoscopy_phantoms(tmp_path, "pranet", num_frames=9)
