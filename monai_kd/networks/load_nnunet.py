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

"""Building the network of an nnU-Net results folder with its trained weights."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.utils import optional_import
from torch import nn

from monai_kd._private_attributes import numpy_scalar
from monai_kd.networks.check_whole import check_whole

CHECKPOINTS = ("final", "best", "latest")
HOW = "python -m pip install nnunetv2"
# what nnU-Net writes beside tensors, and no more
SCALARS = [
    np.dtype,
    *{type(np.dtype(kind)) for kind in ("float16", "float32", "float64", "int32", "int64", "bool")},
    numpy_scalar(),
]


def load_nnunet(
    folder: str | PathLike, fold: int | str = 0, checkpoint: str = "final", deep_supervision: bool = False
) -> nn.Module:
    """
    Build the network that nnU-Net trained in one fold, with its weights.

    Args:
        folder: ``RESULTS/DatasetXXX_NAME/TRAINER__PLANS__CONFIGURATION``, with ``plans.json`` and ``dataset.json``.
        fold: number of the fold, or ``"all"``.
        checkpoint: ``"final"``, ``"best"`` or ``"latest"``.
        deep_supervision: whether the network returns a list of logits, from the full resolution downwards.

    Returns:
        the module, in eval mode.

    Raises:
        ImportError: when nnunetv2 is not installed.
        FileNotFoundError: when the folder is none of nnU-Net's, or the fold or the checkpoint is missing.
        ValueError: when the checkpoint is damaged, holds code, or weights of another network.
    """
    root = Path(folder)
    content = read_checkpoint(root, fold, checkpoint)
    configuration = content["init_args"]["configuration"]
    plans = json.loads((root / "plans.json").read_text("utf-8"))
    if plans["configurations"][configuration].get("previous_stage"):
        raise ValueError(
            f"`folder` must hold a network that sees images alone, but got {configuration} in {root}, the second stage "
            "of a cascade, which also sees the segmentation of the first; distil 3d_fullres or 2d."
        )
    network = network_of_plans(plans, root / "dataset.json", configuration)
    try:
        network.load_state_dict(content["network_weights"])
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"`folder` must hold the network of its plans.json, but the weights of {root} are others: {reason} Was it "
            f"trained by a trainer with an architecture of its own ({content.get('trainer_name')})?"
        ) from error
    set_deep_supervision(network, deep_supervision)
    return network.eval()


def read_checkpoint(folder: Path, fold: int | str, checkpoint: str) -> dict[str, Any]:
    """
    Read a checkpoint of nnU-Net. Of the objects beside tensors only the scalars of numpy are let in, so that no code in
    the file is run.

    Args:
        folder: of the results.
        fold: number of the fold, or ``"all"``.
        checkpoint: ``"final"``, ``"best"`` or ``"latest"``.

    Raises:
        FileNotFoundError: when a file is missing.
        ValueError: when it is damaged or holds code.
    """
    if checkpoint not in CHECKPOINTS:
        raise ValueError(f"`checkpoint` must be one of {', '.join(CHECKPOINTS)}, but got {checkpoint!r}.")
    for name in ("plans.json", "dataset.json"):
        if not (folder / name).is_file():
            raise FileNotFoundError(
                f"`folder` must be a results folder of nnU-Net, TRAINER__PLANS__CONFIGURATION, but {folder} has no "
                f"{name}."
            )
    file = folder / f"fold_{fold}" / f"checkpoint_{checkpoint}.pth"
    if not file.is_file():
        there = sorted(str(path.relative_to(folder)) for path in folder.glob("fold_*/checkpoint_*.pth"))
        raise FileNotFoundError(
            f"`folds` and `checkpoint` must name a trained network, but got no {file}; there is "
            f"{', '.join(there) or 'none'}."
        )
    try:
        check_whole(file)
        with torch.serialization.safe_globals(SCALARS):
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file fails in a dozen ways
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"`folder` must hold a checkpoint of nnU-Net, but {file} is damaged or needs code to be run: {reason}"
        ) from error


def trained_folds(folder: str | PathLike, checkpoint: str = "final") -> list[int | str]:
    """
    The folds that were trained, numbers first.

    Args:
        folder: of the results.
        checkpoint: ``"final"``, ``"best"`` or ``"latest"``.
    """
    found = [
        path.parent.name.removeprefix("fold_") for path in Path(folder).glob(f"fold_*/checkpoint_{checkpoint}.pth")
    ]
    numbers: list[int | str] = sorted(int(name) for name in found if name.isdigit())
    return numbers + [name for name in found if not name.isdigit()]


def set_deep_supervision(network: nn.Module, enabled: bool) -> None:
    """Let a network of nnU-Net return all its outputs, or the one of full resolution."""
    decoder: Any = getattr(network, "decoder", network)
    if not hasattr(decoder, "deep_supervision"):
        raise ValueError(
            f"`network` must have nnU-Net's switch for deep supervision, but got {type(network).__name__} without it."
        )
    decoder.deep_supervision = enabled


def network_of_plans(plans: Mapping[str, Any], dataset_file: Path, configuration: str) -> nn.Module:
    """
    Build the network that nnU-Net's plans describe, with fresh weights and deep supervision.

    Args:
        plans: content of ``plans.json``.
        dataset_file: ``dataset.json``.
        configuration: ``2d``, ``3d_fullres`` or another of the plans.

    Raises:
        ImportError: when nnunetv2 is not installed.
    """
    _, found = optional_import("nnunetv2")
    if not found:
        raise ImportError(f"a network of nnU-Net needs the package nnunetv2, which is not installed: {HOW}.")
    from monai.apps.nnunet import get_network_from_nnunet_plans

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "plans.json"
        file.write_text(json.dumps(plans), encoding="utf-8")
        return get_network_from_nnunet_plans(str(file), str(dataset_file), configuration)
