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

"""Small bundles in the conventions of MONAI's model zoo, which know nothing of monai_kd."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import yaml
from monai.bundle import ConfigParser

UNET = {
    "_target_": "UNet",
    "spatial_dims": 2,
    "in_channels": 1,
    "out_channels": 2,
    "channels": [16, 32],
    "strides": [2],
}
IMAGES = "$[torch.sin(torch.arange(256.0).view(1, 16, 16) * (1 + 0.1 * i)) for i in range(6)]"
LABELS = "$[(image > 0.3).float() for image in @images]"
MULTI_LABELS = "$[torch.cat([image > 0.3, image > 0]).float() for image in @images]"
CASES = "$[{'image': i, 'label': l} for i, l in zip(@images, @labels)]"
FLIP = {"_target_": "RandFlipd", "keys": ["image", "label"], "prob": 0.5, "spatial_axis": 0}
FROM_ENGINE = "$monai.handlers.from_engine(['pred', 'label'])"


def write_nested(folder: Path) -> Path:
    """JSON, ids with sections, the best weights in models/model.pt, as spleen_ct_segmentation."""
    train = _common("$@bundle_root + '/models'") | {
        "train": {
            "dataset": {"_target_": "Dataset", "data": f"{CASES[:-1]}][:4]", "transform": FLIP},
            "dataloader": {"_target_": "DataLoader", "dataset": "@train#dataset", "batch_size": 2, "shuffle": True},
            "handlers": [
                {"_target_": "LrScheduleHandler", "lr_scheduler": "@lr_scheduler", "print_lr": False},
                {"_target_": "ValidationHandler", "validator": "@validate#evaluator", "interval": 1},
            ],
            "trainer": _trainer("@train#dataloader", "@train#handlers"),
        },
        "validate": {
            "dataloader": _loader("[4:]"),
            "handlers": [
                {
                    "_target_": "CheckpointSaver",
                    "save_dir": "@ckpt_dir",
                    "save_dict": {"model": "@network"},
                    "save_key_metric": True,
                    "key_metric_filename": "model.pt",
                }
            ],
            "evaluator": _evaluator("@validate#dataloader", "@validate#handlers"),
        },
        "run": ["$@train#trainer.run()"],
    }
    _write(folder, {"train.json": train, "inference.json": _inference()}, UNET)
    return folder


def write_flat(folder: Path) -> Path:
    """
    YAML with comments, flat ids, another name of the run, weights saved elsewhere, and a handler that loads
    models/model.pt into what is trained, as segmentation_template and ventricular_short_axis_3label.
    """
    train = _common("$@bundle_root + '/results'") | {
        "train_dataset": {"_target_": "Dataset", "data": f"{CASES[:-1]}][:4]", "transform": FLIP},
        "train_dataloader": {"_target_": "DataLoader", "dataset": "@train_dataset", "batch_size": 2, "shuffle": True},
        "eval_dataloader": _loader("[4:]"),
        "val_handlers": [
            {
                "_target_": "CheckpointSaver",
                "save_dir": "@ckpt_dir",
                "save_dict": {"model": "@network"},
                "save_key_metric": True,
            }
        ],
        "evaluator": _evaluator("@eval_dataloader", "@val_handlers"),
        "handlers": [
            {
                "_target_": "CheckpointLoader",
                "load_path": "$@bundle_root + '/models/model.pt'",
                "load_dict": {"model": "@network"},
            },
            {"_target_": "ValidationHandler", "validator": "@evaluator", "interval": 1},
        ],
        "trainer": _trainer("@train_dataloader", "@handlers"),
        "training": ["$@trainer.run()"],
    }
    _write(folder, {"train.yaml": train, "inference.yaml": _inference()}, UNET)
    return folder


def write_multilabel(folder: Path) -> Path:
    """Two classes that overlap, and a network in the bundle's own ``scripts``, as brats_mri and UNEST."""
    network = {"_target_": "scripts.nets.TwoHeads", "channels": [16, 32], "strides": [2]}
    train = _common("$@bundle_root + '/models'") | {
        "labels": MULTI_LABELS,
        "loss": {"_target_": "DiceLoss", "sigmoid": True},
        "postprocessing": {"_target_": "Activationsd", "keys": "pred", "sigmoid": True},
        "train": {
            "dataloader": _loader("[:4]", batch_size=2),
            "handlers": [{"_target_": "ValidationHandler", "validator": "@validate#evaluator", "interval": 1}],
            "trainer": _trainer("@train#dataloader", "@train#handlers"),
        },
        "validate": {"evaluator": _evaluator({**_loader("[4:]")}, None)},
        "run": ["$@train#trainer.run()"],
    }
    (folder / "scripts").mkdir(parents=True)
    (folder / "scripts" / "__init__.py").write_text("")
    (folder / "scripts" / "nets.py").write_text(
        "from monai.networks.nets import UNet\n\n\n"
        "class TwoHeads(UNet):\n"
        "    def __init__(self, channels, strides):\n"
        "        super().__init__(2, 1, 2, channels, strides)\n"
    )
    _write(folder, {"train.json": train, "inference.json": _inference()}, network)
    return folder


def _common(ckpt_dir: str) -> dict[str, Any]:
    return {
        "imports": ["$import torch"],
        "bundle_root": ".",
        "ckpt_dir": ckpt_dir,
        "epochs": 2,
        "device": "$torch.device('cpu')",
        "images": IMAGES,
        "labels": LABELS,
        "network_def": None,
        "network": "$@network_def.to(@device)",
        "loss": {"_target_": "DiceCELoss", "to_onehot_y": True, "softmax": True},
        "optimizer": {"_target_": "torch.optim.Adam", "params": "$@network.parameters()", "lr": 0.01},
        "lr_scheduler": {
            "_target_": "torch.optim.lr_scheduler.StepLR",
            "optimizer": "@optimizer",
            "step_size": 1,
            "gamma": 0.5,
        },
        "postprocessing": {
            "_target_": "AsDiscreted",
            "keys": ["pred", "label"],
            "argmax": [True, False],
            "to_onehot": 2,
        },
        "initialize": ["$monai.utils.set_determinism(seed=123)"],
    }


def _loader(part: str, batch_size: int = 1) -> dict[str, Any]:
    dataset = {"_target_": "Dataset", "data": f"{CASES[:-1]}]{part}"}
    return {"_target_": "DataLoader", "dataset": dataset, "batch_size": batch_size}


def _trainer(loader: Any, handlers: Any) -> dict[str, Any]:
    return {
        "_target_": "SupervisedTrainer",
        "max_epochs": "@epochs",
        "device": "@device",
        "train_data_loader": loader,
        "network": "@network",
        "loss_function": "@loss",
        "optimizer": "@optimizer",
        "train_handlers": handlers,
    }


def _evaluator(loader: Any, handlers: Any) -> dict[str, Any]:
    return {
        "_target_": "SupervisedEvaluator",
        "device": "@device",
        "val_data_loader": loader,
        "network": "@network",
        "postprocessing": "@postprocessing",
        "key_val_metric": {"val_mean_dice": {"_target_": "MeanDice", "output_transform": FROM_ENGINE}},
        "val_handlers": handlers,
    }


def _inference() -> dict[str, Any]:
    return {
        "imports": ["$import torch"],
        "bundle_root": ".",
        "ckpt_path": "$@bundle_root + '/models/model.pt'",
        "images": "$[torch.ones(1, 16, 16)]",
        "device": "$torch.device('cpu')",
        "network_def": None,
        "network": "$@network_def.to(@device)",
        "dataloader": {
            "_target_": "DataLoader",
            "dataset": {"_target_": "Dataset", "data": "$[{'image': image} for image in @images]"},
        },
        "handlers": [{"_target_": "CheckpointLoader", "load_path": "@ckpt_path", "load_dict": {"model": "@network"}}],
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "val_handlers": "@handlers",
        },
        "run": ["$@evaluator.run()"],
    }


def _write(folder: Path, configs: dict[str, Any], network: dict[str, Any]) -> None:
    """The configurations, metadata, a page, a licence, and trained weights."""
    (folder / "configs").mkdir(parents=True)
    for name, content in configs.items():
        content = content | {"network_def": network}
        text = json.dumps(content, indent=4)
        if name.endswith(".yaml"):
            text = yaml.safe_dump(content, sort_keys=False).replace("epochs: 2", "epochs: 2  # more is better")
        (folder / "configs" / name).write_text(text)
    image = {"num_channels": 1, "spatial_shape": [16, 16]}
    meta = {"version": "0.1.0", "name": "small", "network_data_format": {"inputs": {"image": image}}}
    (folder / "configs" / "metadata.json").write_text(json.dumps(meta))
    (folder / "docs").mkdir()
    (folder / "docs" / "README.md").write_text("# Small\n")
    (folder / "LICENSE").write_text("free\n")
    (folder / "models").mkdir()
    torch.manual_seed(1)
    torch.save(_built(folder, network).state_dict(), folder / "models" / "model.pt")


def _built(folder: Path, network: dict[str, Any]) -> torch.nn.Module:
    from monai_kd.networks.bundle_importable import bundle_importable

    with bundle_importable(folder):
        return ConfigParser({"network": network}).get_parsed_content("network")
