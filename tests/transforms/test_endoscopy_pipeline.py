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

"""What a bundle for endoscopy is put together from: transforms of MONAI around our loaders, and metrics of MONAI."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import DataLoader, Dataset, IterableDataset
from monai.engines import SupervisedEvaluator
from monai.handlers import MeanDice, MeanIoUHandler, from_engine
from PIL import Image

from monai_kd.data import Frames, endoscopy_cases, write_endoscopy_phantoms
from monai_kd.handlers import CaseMetricsHandler
from monai_kd.transforms import LoadMask, LoadRGB

CONFIG = {
    "size": [64, 96],
    "load": [
        {"_target_": "monai_kd.transforms.LoadRGBd", "keys": "image"},
        {"_target_": "monai_kd.transforms.LoadMaskd", "keys": "label", "allow_missing_keys": True},
    ],
    "resize": {"_target_": "Resized", "keys": "image", "spatial_size": "@size", "mode": "bilinear"},
    "resize_both": {
        "_target_": "Resized",
        "keys": ["image", "label"],
        "spatial_size": "@size",
        "mode": ["bilinear", "nearest-exact"],
    },
    "normalise": {
        "_target_": "NormalizeIntensityd",
        "keys": "image",
        "channel_wise": True,
        "subtrahend": [0.485, 0.456, 0.406],
        "divisor": [0.229, 0.224, 0.225],
    },
    "augment": [
        {"_target_": "RandFlipd", "keys": ["image", "label"], "prob": 0.5, "spatial_axis": 0},
        {"_target_": "RandFlipd", "keys": ["image", "label"], "prob": 0.5, "spatial_axis": 1},
        {
            "_target_": "RandAffined",
            "keys": ["image", "label"],
            "prob": 1.0,
            "rotate_range": 3.14159,
            "mode": ["bilinear", "nearest"],
            "padding_mode": "zeros",
        },
        {"_target_": "RandScaleIntensityd", "keys": "image", "prob": 1.0, "factors": 0.2, "channel_wise": True},
        {"_target_": "RandAdjustContrastd", "keys": "image", "prob": 1.0, "gamma": [0.7, 1.5]},
        {
            "_target_": "ScaleIntensityRanged",
            "keys": "image",
            "a_min": 0,
            "a_max": 1,
            "b_min": 0,
            "b_max": 1,
            "clip": True,
        },
    ],
    "train": {"_target_": "Compose", "transforms": "$@load + [@resize_both] + @augment + [@normalise]"},
    "validate": {"_target_": "Compose", "transforms": "$@load + [@resize, @normalise]"},
    "post": {
        "_target_": "Compose",
        "transforms": [
            {"_target_": "Activationsd", "keys": "pred", "sigmoid": True},
            {
                "_target_": "Invertd",
                "keys": "pred",
                "transform": "@resize",
                "orig_keys": "image",
                "nearest_interp": False,
            },
            {"_target_": "AsDiscreted", "keys": "pred", "threshold": 0.5},
        ],
    },
    "output_dir": ".",
    "save": [
        {"_target_": "Transposed", "keys": "pred", "indices": [0, 2, 1]},
        {
            "_target_": "SaveImaged",
            "keys": "pred",
            "output_dir": "@output_dir",
            "output_ext": ".png",
            "output_postfix": "",
            "resample": False,
            "scale": 255,
            "separate_folder": False,
            "print_log": False,
            "output_name_formatter": "$lambda meta, saver: {'subject': meta['case'] + '.png'}",
        },
    ],
    "infer": {"_target_": "Compose", "transforms": "$[*@post.transforms, *@save]"},
}


class Brightness(torch.nn.Module):
    """A network that finds what is bright in the normalised green channel."""

    def forward(self, image):
        return image[:, 1:2]


@pytest.fixture
def config(tmp_path):
    parser = ConfigParser({**CONFIG, "output_dir": str(tmp_path / "masks")})
    parser["imports"] = ["$import monai_kd"]
    return parser


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    root = write_endoscopy_phantoms(
        tmp_path_factory.mktemp("frames"), "pranet", num_frames=10, size=(48, 72), progress=False
    )
    test = root / "TestDataset" / "Kvasir"
    Image.new("RGB", (72, 48), (150, 90, 80)).save(test / "images" / "2.png")
    Image.new("L", (72, 48), 0).save(test / "masks" / "2.png")  # no polyp
    return endoscopy_cases(root / "TestDataset")


def test_normalisation_of_imagenet(config, cases):
    image = LoadRGB()(cases[0]["image"]).as_tensor()
    mean, std = (torch.tensor(v)[:, None, None] for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    normalise = config.get_parsed_content("normalise")
    # a copy, since MONAI normalises channels in place
    torch.testing.assert_close(normalise({"image": image.clone()})["image"].as_tensor(), (image - mean) / std)


def test_augmentation_moves_image_and_label_alike(config, cases):
    transform = config.get_parsed_content("train").set_random_state(0)
    marked = {**cases[0], "image": LoadMask()(cases[0]["label"]).expand(3, -1, -1)}  # the mask as image
    marked["image"] = (255 * marked["image"].permute(1, 2, 0)).to(torch.uint8).numpy()
    for _ in range(5):
        item = transform(marked)
        assert item["image"].shape == (3, 64, 96)
        assert item["label"].unique().tolist() in ([0, 1], [0])
        bright = item["image"].mean(0) > item["image"].mean(0).max() / 2
        assert ((bright != (item["label"][0] > 0.5)).float().mean()) < 0.03


def test_colour_jitter_changes_the_hue_and_stays_in_range(config, cases):
    transforms = config.get_parsed_content("augment")[3:]
    image = LoadRGB()(cases[0]["image"])
    hues = []
    for seed in range(4):
        item = {"image": image}
        for transform in transforms:
            if hasattr(transform, "set_random_state"):
                transform.set_random_state(seed)
            item = transform(item)
        assert 0 <= item["image"].min() < item["image"].max() <= 1
        means = item["image"].mean(dim=(1, 2))
        hues.append(round(float(means[0] / means[2]), 3))
    assert len(set(hues)) == 4


def evaluator(config, cases, tmp_path):
    handlers = [CaseMetricsHandler(tmp_path / "eval", classes=["polyp"], metrics=["dice", "iou"])]
    transform = from_engine(["pred", "label"])
    return SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(Dataset(cases, config.get_parsed_content("validate")), batch_size=2),
        network=Brightness(),
        postprocessing=config.get_parsed_content("post"),
        key_val_metric={"dice": MeanDice(output_transform=transform)},
        additional_metrics={"iou": MeanIoUHandler(output_transform=transform)},
        val_handlers=handlers,
    )


def test_metrics_are_means_over_images_at_native_size(config, cases, tmp_path):
    engine = evaluator(config, cases, tmp_path)
    engine.run()
    expected = []
    for case in cases:
        image, label = LoadRGB()(case["image"]), LoadMask()(case["label"])[0].numpy() > 0
        item = {"image": image}
        for name in ("resize", "normalise"):
            item = config.get_parsed_content(name)(item)
        large = torch.sigmoid(item["image"][1:2]).as_tensor()
        pred = torch.nn.functional.interpolate(large[None], label.shape, mode="bilinear", align_corners=False)[0, 0]
        pred = pred.numpy() > 0.5
        both = (pred & label).sum()
        if label.any():
            expected.append((2 * both / (pred.sum() + label.sum()), both / (pred | label).sum()))
        else:
            expected.append((np.nan, np.nan))  # an empty label counts in no mean
    np.testing.assert_allclose(engine.state.metric_details["dice"][:, 0], [d for d, _ in expected], atol=1e-6)
    np.testing.assert_allclose(engine.state.metric_details["iou"][:, 0], [i for _, i in expected], atol=1e-6)
    means = np.nanmean(expected, axis=0)
    assert engine.state.metrics["dice"] == pytest.approx(means[0], abs=1e-6)
    assert engine.state.metrics["iou"] == pytest.approx(means[1], abs=1e-6)
    assert means[1] < means[0]
    rows = (tmp_path / "eval" / "cases.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows[1:]] == [case["case"] for case in cases]
    assert rows[-1].startswith("Kvasir_2,polyp,,,0,")  # not defined, but what was predicted there is counted


def test_saved_masks_lie_on_their_frames(config, tmp_path):
    sizes = {"wide": (30, 70), "tall": (64, 40)}
    for name, (height, width) in sizes.items():
        frame = np.zeros((height, width, 3), np.uint8)
        frame[:10, -20:] = 255  # in the upper right corner
        (tmp_path / "in").mkdir(exist_ok=True)
        Image.fromarray(frame).save(tmp_path / "in" / f"{name}.png")
    dataset = IterableDataset(Frames(tmp_path / "in"), config.get_parsed_content("validate"))
    SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(dataset, batch_size=2),
        network=Brightness(),
        postprocessing=config.get_parsed_content("infer"),
    ).run()
    for name, (height, width) in sizes.items():
        mask = np.asarray(Image.open(tmp_path / "masks" / f"{name}.png"))
        assert mask.shape == (height, width)
        assert mask[:8, -17:].min() == 255
        assert mask[13:].max() == 0
        assert mask[:, :-24].max() == 0
