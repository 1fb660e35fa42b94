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

"""A small nnU-Net that a large one teaches, trained and used by nnU-Net's own commands."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from monai_kd.networks.load_nnunet import read_checkpoint

ROOT = Path(__file__).resolve().parents[2]
APART = Path(sys.prefix) / "nnunet"  # where `make install` puts it, with a torchvision that others must not find
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (APART / "nnunetv2").is_dir() and importlib.util.find_spec("nnunetv2") is None,
        reason="needs nnunetv2: `make nnunet`",
    ),
]


def run(*words: str) -> None:
    places = [str(ROOT), str(APART), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, places)), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(Path(__file__).with_name("small_nnunet.py")), *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("nnunet")
    run("train", str(root))
    return root


@pytest.fixture(scope="module")
def found(root) -> dict[str, Any]:
    return json.loads((root / "found.json").read_text())


def test_weight_0_is_nnunets_own_training(found):
    assert found["zero"]
    assert found["differs"]


def test_plans_have_a_quarter_of_the_widths_and_the_same_data(root, found):
    preprocessed = root / "preprocessed" / "Dataset001_Phantom"
    names = ("nnUNetPlans", "nnUNetPlans_kd4")
    plans = [json.loads((preprocessed / f"{name}.json").read_text()) for name in names]
    large, small = (each["configurations"]["2d"] for each in plans)
    widths = [each["architecture"]["arch_kwargs"].pop("features_per_stage") for each in (large, small)]
    assert widths[1] == [max(8, width // 4) for width in widths[0]]
    assert small == large
    assert "nnUNetv2_train 1 2d 0 -tr nnUNetTrainerDistillation -p nnUNetPlans_kd4" in found["said"]


def test_teacher_is_in_nnunets_log(found):
    assert f"taught by fold 0 of {found['teacher']} (final), weight auto" in found["log"]
    assert found["log"].count("distillation: supervised ") == 2
    assert found["balancer"]["kd"] > 0


def test_training_goes_on(found):
    """From the second epoch to the third, with the state of the weights."""
    assert found["resumed"] == [3, 6]


def test_checkpoint_names_nnunets_own_trainer(found):
    content = read_checkpoint(Path(found["student"]).parent, 0, "final")
    assert content["trainer_name"] == "nnUNetTrainer"
    assert "monai_kd" in content


def test_teacher_that_knows_the_validation_cases_is_refused(found):
    assert "`folds` must be the student's fold 0, but got 1: such a teacher was trained on cases that" in found["leak"]
    assert "got no " in found["other_fold"]
    assert "there is fold_0" in found["other_fold"]


def test_nnunet_predicts_where_monai_kd_is_not_known(root, found, tmp_path):
    run("predict", str(root), str(Path(found["student"]).parent), str(tmp_path))
    mask = nibabel.load(tmp_path / "new.nii.gz")
    image = nibabel.load(root / "raw" / "Dataset001_Phantom" / "imagesTs" / "new_0000.nii.gz")
    np.testing.assert_allclose(mask.affine, image.affine)
    assert mask.shape == image.shape
    assert set(np.unique(np.asarray(mask.dataobj))) <= {0, 1, 2}


def test_student_is_small(found):
    small, large = (
        sum(value.numel() for value in read_checkpoint(Path(folder), 0, "final")["network_weights"].values())
        for folder in (Path(found["student"]).parent, found["teacher"])
    )
    assert small < 0.1 * large
