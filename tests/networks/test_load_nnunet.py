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

"""Checkpoints of nnU-Net are read without running code."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from monai_kd.networks import Teacher
from monai_kd.networks.load_nnunet import load_nnunet, read_checkpoint, set_deep_supervision, trained_folds


@pytest.fixture
def folder(tmp_path) -> Path:
    """Results of nnU-Net, with what it writes into a checkpoint."""
    plans = {"configurations": {"2d": {}, "3d_cascade_fullres": {"previous_stage": "3d_lowres"}}}
    (tmp_path / "plans.json").write_text(json.dumps(plans))
    (tmp_path / "dataset.json").write_text("{}")
    write(tmp_path)
    return tmp_path


def write(folder: Path, fold: int | str = 0, **entries: Any) -> None:
    file = folder / f"fold_{fold}" / "checkpoint_final.pth"
    file.parent.mkdir(exist_ok=True)
    content = {
        "network_weights": {"weight": torch.ones(2)},
        "_best_ema": np.float64(0.5),
        "logging": {"dice": [np.float32(0.25), np.float64(0.5)], "ema": [np.int64(1), np.bool_(True)]},
        "init_args": {"configuration": "2d", "device": torch.device("cpu")},
        "trainer_name": "nnUNetTrainer",
    }
    torch.save(content | entries, file)


class Code:
    """What a pickle can do."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("/tmp/this_must_not_be_made_by_a_checkpoint",)


def test_scalars_of_numpy_are_let_in(folder):
    content = read_checkpoint(folder, 0, "final")
    assert content["_best_ema"] == 0.5
    assert content["logging"]["dice"] == [0.25, 0.5]


def test_code_is_refused(folder):
    write(folder, _best_ema=Code())
    with pytest.raises(ValueError, match=r"checkpoint_final.pth is damaged or needs code to be run"):
        read_checkpoint(folder, 0, "final")
    assert not Path("/tmp/this_must_not_be_made_by_a_checkpoint").exists()


def test_damaged_file_is_named(folder):
    file = folder / "fold_0" / "checkpoint_final.pth"
    file.write_bytes(file.read_bytes()[:300])
    with pytest.raises(ValueError, match=r"but .*checkpoint_final.pth is damaged"):
        read_checkpoint(folder, 0, "final")


@pytest.mark.parametrize(
    ("fold", "checkpoint", "message"),
    [
        (1, "final", r"got no .*fold_1/checkpoint_final.pth; there is fold_0/checkpoint_final.pth"),
        (0, "best", r"got no .*checkpoint_best.pth"),
        (0, "model", r"`checkpoint` must be one of final, best, latest, but got 'model'"),
    ],
)
def test_what_is_not_there_is_named(folder, fold, checkpoint, message):
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        read_checkpoint(folder, fold, checkpoint)


def test_another_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="`folder` must be a results folder of nnU-Net, .* has no plans.json"):
        Teacher.from_nnunet(tmp_path)


def test_cascade_is_refused(folder):
    write(folder, init_args={"configuration": "3d_cascade_fullres"})
    with pytest.raises(ValueError, match="but got 3d_cascade_fullres in .*, the second stage of a cascade"):
        load_nnunet(folder)


def test_folds_that_were_trained(folder):
    for fold in (10, 2, "all"):
        write(folder, fold)
    assert trained_folds(folder) == [0, 2, 10, "all"]
    assert trained_folds(folder, "best") == []


def test_network_without_deep_supervision():
    with pytest.raises(ValueError, match="must have nnU-Net's switch for deep supervision, but got Linear"):
        set_deep_supervision(torch.nn.Linear(1, 1), True)
