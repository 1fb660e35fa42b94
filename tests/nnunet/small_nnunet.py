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

"""nnU-Net on phantoms, from its planning to its prediction; run by test_training.py in a process of its own."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch

DATASET = "Dataset001_Phantom"


def prepare(root: Path) -> None:
    """nnU-Net's folders, and the two operators that a torchvision without a build for this torch lacks."""
    for name in ("raw", "preprocessed", "results"):
        (root / name).mkdir(parents=True, exist_ok=True)
        os.environ[f"nnUNet_{name}"] = str(root / name)
    os.environ |= {"nnUNet_n_proc_DA": "1", "nnUNet_compile": "0", "nnUNet_def_n_proc": "1"}
    torch.set_num_threads(1)
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        globals()["LIBRARY"] = library  # as long as this process lives


def write_data(root: Path) -> None:
    """Eight phantoms in nnU-Net's layout."""
    from monai_kd.data import ct_phantom

    folder = root / "raw" / DATASET
    affine = np.diag([1.5, 1.5, 2.0, 1.0])
    for kind in ("imagesTr", "labelsTr", "imagesTs"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for number in range(8):
        phantom = ct_phantom(seed=number, size=32, num_slices=8)
        image = nibabel.Nifti1Image(phantom.image, affine)
        nibabel.save(image, folder / "imagesTr" / f"c{number}_0000.nii.gz")
        label = nibabel.Nifti1Image(phantom.label.astype(np.uint8), affine)
        nibabel.save(label, folder / "labelsTr" / f"c{number}.nii.gz")
    nibabel.save(image, folder / "imagesTs" / "new_0000.nii.gz")
    labels = {"background": 0, "organ": 1, "tumor": 2}
    content = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": 8, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(content))


def plan() -> None:
    """Planning and preprocessing of the 2D configuration."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import (
        extract_fingerprints,
        plan_experiments,
        preprocess,
    )

    extract_fingerprints([1], num_processes=1, check_dataset_integrity=False)
    plan_experiments([1])
    preprocess([1], configurations=["2d"], num_processes=[1])
    os.environ |= {"nnUNet_n_proc_DA": "0"}


def train(trainer: str, plans: str, epochs: int = 2, resume: bool = False, fold: int = 0) -> Any:
    """A short training by nnU-Net's own means, from one seed."""
    from nnunetv2.run.run_training import get_trainer_from_args, maybe_load_checkpoint

    torch.manual_seed(0)
    np.random.seed(0)
    made = get_trainer_from_args("1", "2d", fold, trainer, plans, resume, torch.device("cpu"))
    made.num_iterations_per_epoch, made.num_val_iterations_per_epoch = 2, 1
    made.save_every = 1
    made.num_epochs = epochs
    maybe_load_checkpoint(made, resume, False, None)
    made.run_training()
    return made


def main(root: Path) -> None:
    """Write what was found to ``found.json``."""
    prepare(root)
    from monai_kd.cli.nnunet import nnunet

    write_data(root)
    plan()
    teacher = train("nnUNetTrainer", "nnUNetPlans")
    results = Path(teacher.output_folder).parent
    found: dict[str, Any] = {"teacher": str(results)}
    found["said"] = nnunet("shrink", str(results))
    os.environ |= {"nnUNet_extTrainer": nnunet("trainer")}
    nnunet("shrink", str(results), weight="0", name="nnUNetPlans_zero")

    own = train("nnUNetTrainer", "nnUNetPlans_zero")
    zero = train("nnUNetTrainerDistillation", "nnUNetPlans_zero")
    found["zero"] = all(map(torch.equal, own.network.state_dict().values(), zero.network.state_dict().values()))

    made = train("nnUNetTrainerDistillation", "nnUNetPlans_kd4")
    found["student"] = made.output_folder
    found["differs"] = not torch.equal(*(next(each.network.parameters()) for each in (made, own)))
    found["log"] = Path(made.log_file).read_text()
    found["balancer"] = made.loss.balancer.scales
    again = train("nnUNetTrainerDistillation", "nnUNetPlans_kd4", epochs=3, resume=True)
    found["resumed"] = [again.current_epoch, again.loss.iteration]
    try:
        train("nnUNetTrainerDistillation", "nnUNetPlans_kd4", fold=1)
    except FileNotFoundError as error:
        found["other_fold"] = str(error)
    again.plans_manager.plans["monai_kd"]["folds"] = [0, 1]
    try:
        again._folds(again.plans_manager.plans["monai_kd"])
    except ValueError as error:
        found["leak"] = str(error)
    (root / "found.json").write_text(json.dumps(found))


def predict(root: Path, folder: str, output: str) -> None:
    """nnU-Net's own prediction, in a process that has never heard of monai_kd."""
    prepare(root)
    sys.modules["monai_kd"] = None  # type: ignore[assignment]
    os.environ.pop("nnUNet_extTrainer", None)
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(device=torch.device("cpu"), perform_everything_on_device=False, verbose=False)
    predictor.initialize_from_trained_model_folder(folder, (0,), "checkpoint_final.pth")
    source = str(root / "raw" / DATASET / "imagesTs")
    predictor.predict_from_files_sequential(source, output)


if __name__ == "__main__":
    if sys.argv[1] == "predict":
        predict(Path(sys.argv[2]), sys.argv[3], sys.argv[4])
    else:
        main(Path(sys.argv[2]))
