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

"""The overlay of a few lines that the README offers, over a plain MONAI bundle that knows nothing of distillation."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from monai.bundle import ConfigWorkflow
from monai.networks.nets import UNet

from monai_kd.data import write_phantoms
from tests.bundles.journey import BUNDLES, ROOT, run_command, undisturbed

pytestmark = pytest.mark.slow
FROM_ENGINE = "$monai.handlers.from_engine(['pred', 'label'])"


def overlay_of(readme: Path) -> str:
    """The block of YAML that attaches a DistillationHandler."""
    return re.search(r"^```yaml\n((?:(?!```).)*DistillationHandler.*?)^```", readme.read_text("utf-8"), re.M | re.S)[1]


OVERLAY = overlay_of(ROOT / "README.md")


def network(channels: list[int]) -> dict[str, Any]:
    return {"_target_": "UNet", "spatial_dims": 3, "in_channels": 1, "out_channels": 2, "channels": channels} | {
        "strides": [2] * (len(channels) - 1)
    }


def plain_bundle(data: Path) -> dict[str, Any]:
    """A training in the form of the model zoo: 3D patches, Dice and cross entropy, validation by sliding windows."""
    load = [
        {"_target_": "LoadImaged", "keys": ["image", "label"], "ensure_channel_first": True},
        {"_target_": "ScaleIntensityRanged", "keys": "image", "a_min": -160, "a_max": 240, "b_min": 0, "b_max": 1},
        {"_target_": "AsDiscreted", "keys": "label", "threshold": 1},
    ]
    crop = {"_target_": "RandSpatialCropd", "keys": ["image", "label"], "roi_size": [32, 32, 4], "random_size": False}
    evaluator = {
        "_target_": "SupervisedEvaluator",
        "device": "@device",
        "val_data_loader": "@validate::dataloader",
        "network": "@network",
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [32, 32, 4]},
        "postprocessing": "@validate::postprocessing",
        "key_val_metric": {
            "dice": {"_target_": "MeanDice", "include_background": False, "output_transform": FROM_ENGINE}
        },
    }
    trainer = {
        "_target_": "SupervisedTrainer",
        "max_epochs": 2,
        "device": "@device",
        "train_data_loader": "@train::dataloader",
        "network": "@network",
        "loss_function": {"_target_": "DiceCELoss", "to_onehot_y": True, "softmax": True},
        "optimizer": "@optimizer",
        "train_handlers": "@train::handlers",
    }
    validation = {"_target_": "ValidationHandler", "validator": "@validate::evaluator", "interval": 1}
    saver = {
        "_target_": "CheckpointSaver",
        "save_dir": "$@bundle_root + '/models'",
        "save_dict": {"model": "@network"},
        "save_final": True,
    }
    saver |= {"final_filename": "model.pt"}
    return {
        "imports": ["$import glob"],
        "bundle_root": ".",
        "dataset_dir": str(data),
        "images": "$sorted(glob.glob(@dataset_dir + '/images/*'))",
        "data": "$[{'image': image, 'label': image.replace('images', 'labels')} for image in @images]",
        "device": "$torch.device('cpu')",
        "network_def": network([4, 8, 16]),
        "network": "$@network_def.to(@device)",
        "optimizer": {"_target_": "torch.optim.Adam", "params": "$@network.parameters()", "lr": 0.01},
        "train": {
            "dataset": {"_target_": "CacheDataset", "data": "$@data[:3]", "transform": {"_target_": "Compose"}},
            "dataloader": {"_target_": "DataLoader", "dataset": "@train::dataset", "batch_size": 1, "shuffle": True},
            "handlers": [validation, saver],
            "trainer": trainer,
        },
        "validate": {
            "dataset": {"_target_": "Dataset", "data": "$@data[3:]", "transform": {"_target_": "Compose"}},
            "dataloader": {"_target_": "DataLoader", "dataset": "@validate::dataset", "batch_size": 1},
            "postprocessing": {
                "_target_": "AsDiscreted",
                "keys": ["pred", "label"],
                "argmax": [True, False],
                "to_onehot": 2,
            },
            "evaluator": evaluator,
        },
        "initialize": ["$monai.utils.set_determinism(seed=123)"],
        "run": ["$@train::trainer.run()"],
    } | {
        "train::dataset::transform::transforms": [*load, crop],
        "train::dataset::progress": False,
        "validate::dataset::transform::transforms": load,
    }


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    """The plain bundle, and beside it one that holds a teacher of the same task."""
    folder = tmp_path_factory.mktemp("zoo")
    data = write_phantoms(folder / "data", "folder", num_cases=5, size=32, num_slices=6, progress=False)
    for name, config in (("plain", {"train.json": plain_bundle(data)}), ("teacher", {})):
        (folder / name / "configs").mkdir(parents=True)
        config |= {"inference.json": {"network_def": network([8, 16, 32])}} if name == "teacher" else {}
        for file, content in config.items():
            (folder / name / "configs" / file).write_text(json.dumps(content))
    (folder / "plain" / "distil.yaml").write_text(OVERLAY.replace("path/to/teacher_bundle", str(folder / "teacher")))
    (folder / "teacher" / "models").mkdir()
    torch.save(UNet(3, 1, 2, [8, 16, 32], [2, 2]).state_dict(), folder / "teacher" / "models" / "model.pt")
    return folder / "plain"


def dice_and_weights(bundle: Path, *overlays: str, **override: Any) -> tuple[float, dict[str, torch.Tensor]]:
    """Validation Dice after training, and the network's weights."""
    with undisturbed():
        files = [str(bundle / file) for file in ("configs/train.json", *overlays)]
        workflow = ConfigWorkflow(files, logging_file=False, bundle_root=str(bundle), **override)
        workflow.initialize()
        workflow.run()
        parser = workflow.parser
        weights = {key: value.clone() for key, value in parser.get_parsed_content("network").state_dict().items()}
        return parser.get_parsed_content("validate::evaluator").state.metrics["dice"], weights


def test_weight_0_is_the_baseline_to_the_last_digit_and_any_other_is_not(bundle):
    dice, weights = dice_and_weights(bundle)
    dice_0, weights_0 = dice_and_weights(bundle, "distil.yaml", **{"kd::terms::0::weight": 0})
    dice_1, weights_1 = dice_and_weights(bundle, "distil.yaml", **{"kd::terms::0::weight": 1.0})
    assert dice_0 == dice > 0
    torch.testing.assert_close(weights_0, weights, rtol=0, atol=0)
    assert dice_1 != dice
    assert not any(torch.equal(weights_1[key], value) for key, value in weights.items() if value.ndim > 1)


def test_adversary_of_the_docs_at_weight_0_is_the_baseline_and_any_other_is_not(bundle):
    docs = (ROOT / "docs" / "methods" / "xp-net.md").read_text("utf-8")
    overlay = re.search(r"^```yaml\n(.*?)^```", docs, re.M | re.S)[1]
    (bundle / "adversary.yaml").write_text(overlay.replace("path/to/teacher_bundle", str(bundle.parent / "teacher")))
    shallow = {"discriminator::kernel_size": 3}  # the patches here have four slices
    _, weights = dice_and_weights(bundle)
    _, weights_0 = dice_and_weights(bundle, "adversary.yaml", **shallow, **{"adversarial::weight": 0})
    _, weights_1 = dice_and_weights(bundle, "adversary.yaml", **shallow)
    torch.testing.assert_close(weights_0, weights, rtol=0, atol=0)
    assert not any(torch.equal(weights_1[key], value) for key, value in weights.items() if value.ndim > 1)


def test_command_of_the_readme_runs(bundle):
    (command,) = re.findall(
        r"python -m monai.bundle run [^`]*distil.yaml[^`]*", (ROOT / "README.md").read_text("utf-8")
    )
    run_command(shlex.split(command), bundle)
    assert (bundle / "models" / "model.pt").is_file()


def test_overlay_is_short_and_the_same_everywhere():
    assert len(OVERLAY.splitlines()) <= 8
    for folder in BUNDLES.values():
        assert overlay_of(folder / "docs" / "README.md") == OVERLAY
