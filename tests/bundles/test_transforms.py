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

"""Labels and stored soft labels move with their images, and a right prediction is right in validation."""

from __future__ import annotations

from typing import Any

import numpy as np
import nibabel
import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, RandomizableTrait, RandomizableTransform

from monai_kd.corrections import store_soft_labels
from monai_kd.networks import Teacher
from tests.bundles.as_trained import AsTrained
from tests.bundles.journey import BUNDLES, CT, HEADNECK, KIDNEY, LIVER, PHOTOS, POLYP, TEAMS, XPNET
from tests.bundles.known_case import (
    CLASSES,
    assert_agree,
    away_from_edges,
    known_case,
    steps,
    told,
)

every_bundle = pytest.mark.parametrize("name", BUNDLES)

# after which the label is not loaded, or not the task's yet
UNMAPPED = ("LoadRGBd", "LoadSliced", "LoadImaged", "Orientationd")
FLIPPED = {"RandFlipd"}
TURNED = FLIPPED | {"RandRotated"}
MOVED = dict.fromkeys([LIVER, KIDNEY, POLYP], TURNED) | {HEADNECK: {"RandAffined"}}
MOVED |= {XPNET: TURNED | {"RandPerspectived"}}
MOVED |= dict.fromkeys(TEAMS, FLIPPED | {"RandRotate90d"})
SPATIAL = [(name, "") for name in BUNDLES] + [(HEADNECK, "train_3d.yaml")]
SPATIAL += [(name, "train_assistant_b.yaml") for name in TEAMS]


@pytest.mark.parametrize(("name", "overlay"), SPATIAL)
def test_labels_move_with_their_images(tmp_path, tiny_data, name, overlay):
    """After each transform of the training, and the label holds whole classes to the end."""
    training = AsTrained(name, tiny_data(name), overlay)
    case = known_case(name, tmp_path, depth=40 if overlay == "train_3d.yaml" else 3)
    transforms = training.get("train::preprocessing").transforms
    classes = set(range(CLASSES[name]))
    moved = set()
    for seed in (0, 10, 20):
        before = None
        for kind, item in steps(transforms, dict(case), seed):
            if kind in UNMAPPED:
                continue
            label = np.asarray(item["label"])[0]
            assert item["image"].shape[1:] == item["label"].shape[1:]
            assert set(np.unique(label)) <= classes, kind
            assert_agree(name, item["image"], label, kind)
            same_size = before is not None and before.shape == label.shape
            if same_size and not np.array_equal(before, label):
                moved.add(kind)
            before = label
    assert moved >= MOVED[name]


@pytest.mark.parametrize("name", TEAMS)
def test_stored_soft_labels_move_with_their_images(tmp_path, tiny_data, name):
    key = {"soft_label_dir": str(tmp_path / "soft"), "soft_label_key": "known"}
    training = AsTrained(name, tiny_data(name), stored=True, **key)
    case = known_case(name, tmp_path)
    network = torch.nn.Conv2d(3, 2, 1)
    with torch.no_grad():
        network.weight[0], network.weight[1] = -1.0, 1.0
        network.bias.zero_()
    loaded = Compose(training.get("train::loading"))(dict(case))
    assert store_soft_labels([loaded], Teacher(network), tmp_path / "soft", "known") == 1
    transforms = training.get("train::preprocessing").transforms
    seen = []
    for seed in (0, 10, 20):
        for kind, item in steps(transforms, dict(case), seed):
            if "soft_label" in item:
                seen.append(kind)
                label = np.asarray(item["label"])[0]
                soft_label = np.asarray(item["soft_label"], dtype=float).argmax(axis=0)
                steady = away_from_edges(label, width=3)
                assert np.array_equal(soft_label[steady], label[steady]), kind
                assert_agree(name, item["image"], label, kind)
    assert seen[:2] == ["LoadSoftLabeld", "RandFlipd"]
    teacher = training.handler("DistillationHandler").teacher
    heard = teacher({"soft_label": item["soft_label"][None]}).logits
    assert np.array_equal(heard.argmax(1)[0], soft_label)


def logits_of(label: np.ndarray, channels: int, margin: float) -> torch.Tensor:
    """Logits of a label (1, *spatial): of one channel for a sigmoid."""
    truth = torch.as_tensor(np.asarray(label)).long()
    if channels == 1:
        return margin * (2.0 * truth - 1)
    return margin * torch.nn.functional.one_hot(truth[0], channels).movedim(-1, 0).float()


def validated(
    training: AsTrained, item: dict[str, Any], logits: torch.Tensor
) -> dict[str, torch.Tensor]:
    prediction = MetaTensor(logits, meta=item["image"].meta)
    return training.evaluator["postprocessing"]({**item, "pred": prediction})


@every_bundle
def test_a_right_prediction_is_right_at_the_size_of_the_label(tmp_path, trained, name):
    """Validation's preprocessing and postprocessing, with the image's own label for a prediction."""
    training = trained(name)
    case = known_case(name, tmp_path)
    transform = training.evaluator["val_data_loader"].dataset.transform
    item = transform(dict(case))
    classes = CLASSES[name]
    channels = 1 if name in (POLYP, XPNET) else classes
    said = torch.as_tensor(told(name, item["image"]))[None]
    done = validated(training, item, logits_of(said, channels, 8.0))
    assert done["pred"].shape == done["label"].shape
    whole = nibabel.load(case["label"]).shape if name in CT else (150, 120)
    assert tuple(done["label"].shape) == (classes, *whole)
    assert set(np.unique(done["pred"])) <= {0, 1}
    for number in range(1, classes):
        pred, label = (np.asarray(done[key][number]) > 0 for key in ("pred", "label"))
        dice = 2 * (pred & label).sum() / (pred.sum() + label.sum())
        assert dice > (0.97 if name in PHOTOS else 0.999)


@every_bundle
def test_the_more_probable_class_is_predicted(tmp_path, trained, name):
    """At 0.52 and 0.48 of probability."""
    training = trained(name)
    item = training.evaluator["val_data_loader"].dataset.transform(known_case(name, tmp_path))
    channels = 1 if name in (POLYP, XPNET) else CLASSES[name]
    for probability, expected in ((0.52, 1.0), (0.48, 0.0)):
        logits = torch.zeros(channels, *item["image"].shape[1:])
        logits[-1 if channels == 1 else 1] = float(np.log(probability / (1 - probability)))
        done = validated(training, dict(item), logits)
        middle = tuple(side // 2 for side in done["pred"].shape[1:])
        assert float(done["pred"][(1, *middle)]) == expected


@every_bundle
def test_validation_draws_nothing(trained, name):
    transforms = trained(name).evaluator["val_data_loader"].dataset.transform.flatten().transforms
    random = (RandomizableTrait, RandomizableTransform)
    assert not [each for each in transforms if isinstance(each, random)]
