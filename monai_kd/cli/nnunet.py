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

"""The verb ``nnunet`` of the command line."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path

from monai_kd.bundle.read_fraction import read_fraction
from monai_kd.data.write_aside import replace_file
from monai_kd.networks.load_nnunet import network_of_plans, read_checkpoint, set_deep_supervision, trained_folds
from monai_kd.nnunet.plans import shrink_plans
from monai_kd.report.network_cost import network_cost
from monai_kd.report.table import Cell, Table

TRAINERS = Path(__file__).parents[1] / "nnunet" / "trainers"
PREPROCESSED = "nnUNet_preprocessed"


def nnunet(
    action: str,
    folder: str = "",
    student: str = "1/4",
    blocks: str = "1",
    checkpoint: str = "final",
    weight: str = "auto",
    temperature: float = 1.0,
    name: str = "",
    overwrite: bool = False,
) -> str:
    """
    Prepare nnU-Net to train a small network that a trained one teaches.

    ``shrink`` writes plans with fewer channels beside those of the trained network. ``trainer`` prints the folder with
    the trainer, for nnU-Net's variable ``nnUNet_extTrainer``.

    Args:
        action: ``shrink`` or ``trainer``.
        folder: of the trained network, RESULTS/DatasetXXX_NAME/TRAINER__PLANS__CONFIGURATION.
        student: the widths of the student, as a part of the teacher's. Never below 8 channels.
        blocks: the blocks of a stage, as a part of the teacher's. At least 1 stays.
        checkpoint: of the teacher: final, best or latest.
        weight: of the divergence between teacher and student: ``auto`` sets itself, 0 trains the student alone.
        temperature: of both outputs, above 0.
        name: of the new plans; nnUNetPlans_kd4 by default for a student of 1/4.
        overwrite: whether plans of this name are replaced.

    Returns:
        the commands that follow, as text.

    Raises:
        FileExistsError: when the plans are there, unless ``overwrite``.
        FileNotFoundError: when a file or a folder is missing.
        ValueError: when an argument is out of range.

    Example::

        >>> nnunet("trainer").endswith("trainers")
        True
    """
    if action == "trainer":
        return str(TRAINERS)
    if action != "shrink":
        raise ValueError(f"`action` must be shrink or trainer, but got {action!r}.")
    if not folder:
        raise ValueError("`folder` must be the results folder of the trained network, but got none.")
    root = Path(folder).resolve()
    folds = trained_folds(root, checkpoint)
    content = read_checkpoint(root, folds[0] if folds else 0, checkpoint)
    plans = json.loads((root / "plans.json").read_text("utf-8"))
    factor = read_fraction("student", student)
    new = name or f"{plans['plans_name']}_kd{round(1 / factor, 2):g}"
    own = weight if weight == "auto" else read_fraction("weight", weight)
    settings = {"teacher": str(root), "checkpoint": checkpoint, "weight": own, "temperature": temperature}
    small = shrink_plans(plans, factor, new, settings, read_fraction("blocks", blocks))
    target = _preprocessed(str(plans["dataset_name"])) / f"{new}.json"
    if target.exists() and not overwrite:
        raise FileExistsError(f"`name` must be new, but got {new}, and {target} is there; replace with --overwrite.")
    replace_file(target, json.dumps(small, indent=4))
    configuration = content["init_args"]["configuration"]
    table = _costs(plans, small, root / "dataset.json", configuration)
    dataset = str(plans["dataset_name"]).removeprefix("Dataset").partition("_")[0]
    return (
        f"wrote {target}\n\n{table}\n"
        f"export nnUNet_extTrainer={TRAINERS}\n"
        f"nnUNetv2_train {int(dataset)} {configuration} {folds[0]} -tr nnUNetTrainerDistillation -p {new}"
    )


def _preprocessed(dataset: str) -> Path:
    """Where nnU-Net reads the plans of a data set."""
    place = os.environ.get(PREPROCESSED)
    if not place:
        raise ValueError(f"{PREPROCESSED} must be set in the environment, as nnU-Net needs it, but got none.")
    folder = Path(place) / dataset
    if not folder.is_dir():
        raise FileNotFoundError(
            f"{PREPROCESSED} must hold the preprocessed data of {dataset}, but got {place}, where it is not; "
            "preprocess it with nnU-Net."
        )
    return folder


def _costs(plans: Mapping, small: Mapping, dataset_file: Path, configuration: str) -> str:
    """Parameters, FLOPs and latency of teacher and student."""
    patch = plans["configurations"][configuration]["patch_size"]
    rows: list[list[Cell]] = []
    for who, each in (("teacher", plans), ("student", small)):
        network = network_of_plans(each, dataset_file, configuration)
        set_deep_supervision(network, False)
        channels = next(iter(network.parameters())).shape[1]
        cost = network_cost(network, (1, channels, *patch), runs=5, warm_up=1)
        rows.append([who, cost.parameters, cost.flops / 1e9, cost.latency_p50])
    columns = {"network": "", "parameters": ",d", "GFLOPs": ".2f", "ms a patch": ".1f"}
    note = f"one patch of {' x '.join(map(str, patch))}, on this machine's processor"
    return Table("Cost", columns, rows, note).to_text()
