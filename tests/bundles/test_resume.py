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

"""A training that stops and goes on reaches what the uninterrupted one reaches, bit for bit."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from monai_kd.bundle.prepare_console import root_cause
from tests.bundles.journey import BUNDLES, DATA, LIVER, ROOT, SMALL, resume_state, run_configs

pytestmark = pytest.mark.slow
RESUME = ["train.yaml", "resume.yaml"]
KILLED = -9 if os.name == "posix" else 1


@pytest.fixture(scope="module")
def options(walked) -> dict[str, Any]:
    """Distillation on LiTS's phantoms in epochs that cut the pass over the data short; four epochs are planned."""
    folder = walked(LIVER)
    return SMALL[LIVER] | {
        "dataset_dir": str(folder / "data" / DATA[LIVER]),
        "teacher_ckpt": str(folder / LIVER / "models" / "teacher.pt"),
        "max_epochs": 4,
        "decay_epochs": 4,
        "tensorboard": False,
    }


def assert_equal(root: Path, other: Path) -> None:
    """Student, optimizer, learning rate, iteration and best score after epoch 4."""
    one, two = resume_state(root, 4), resume_state(other, 4)
    assert one["trainer"] == two["trainer"]
    assert one["lr_scheduler"] == two["lr_scheduler"]
    assert one["best"] == two["best"]
    torch.testing.assert_close(one["model"], two["model"], rtol=0, atol=0)
    torch.testing.assert_close(one["optimizer"], two["optimizer"], rtol=0, atol=0)
    models = [torch.load(path / "models" / "model.pt", weights_only=True) for path in (root, other)]
    torch.testing.assert_close(*models, rtol=0, atol=0)


@pytest.fixture(scope="module")
def straight(options, tmp_path_factory) -> Path:
    """Four epochs in one go."""
    root = tmp_path_factory.mktemp("straight")
    run_configs(BUNDLES[LIVER], ["train.yaml"], bundle_root=str(root), **options)
    return root


@pytest.fixture(scope="module")
def stopped(options, tmp_path_factory) -> Path:
    """Two of four epochs."""
    root = tmp_path_factory.mktemp("stopped")
    run_configs(BUNDLES[LIVER], ["train.yaml"], bundle_root=str(root), **(options | {"max_epochs": 2}))
    return root


def copied(root: Path, target: Path) -> Path:
    return Path(shutil.copytree(root, target / "copy"))


def test_two_epochs_and_two_are_four(options, straight, stopped, tmp_path):
    root = copied(stopped, tmp_path)
    run_configs(BUNDLES[LIVER], RESUME, bundle_root=str(root), **options)
    assert_equal(root, straight)
    assert not torch.equal(*(next(iter(resume_state(root, epoch)["model"].values())) for epoch in (2, 4)))


def test_checkpoint_that_was_cut_off_is_passed_over(options, straight, stopped, tmp_path, caplog):
    root = copied(stopped, tmp_path)
    newest = root / "models" / "resume" / "model_checkpoint_epoch=2.pt"
    newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    run_configs(BUNDLES[LIVER], RESUME, bundle_root=str(root), **options)
    assert f"{newest} cannot be read and is passed over" in caplog.text
    assert_equal(root, straight)


def test_killed_in_an_epoch_it_goes_on(options, straight, tmp_path):
    config = BUNDLES[LIVER] / "configs" / "train.yaml"
    words = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(config), "--bundle_root", str(tmp_path)]
    words += [word for key, value in options.items() for word in (f"--{key}", str(value))]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    first = tmp_path / "models" / "resume" / "model_checkpoint_epoch=1.pt"
    while process.poll() is None and not _readable(first):
        time.sleep(0.01)
    process.kill()
    _, said = process.communicate()
    assert process.returncode == KILLED, said[-2000:]
    assert not first.with_name("model_checkpoint_epoch=4.pt").exists()
    run_configs(BUNDLES[LIVER], RESUME, bundle_root=str(tmp_path), **options)
    assert_equal(tmp_path, straight)


def _readable(path: Path) -> bool:
    try:
        return bool(torch.load(path, weights_only=True))
    except (OSError, RuntimeError, EOFError):
        return False


def test_worse_epochs_leave_the_best_weights(options, stopped, tmp_path):
    """Before it stopped, the run had reached a score that the two epochs to come do not reach."""
    root = copied(stopped, tmp_path)
    for epoch in (1, 2):
        before = resume_state(root, epoch) | {"best": {"_saved": [(0.99, "model.pt")]}}
        torch.save(before, root / "models" / "resume" / f"model_checkpoint_epoch={epoch}.pt")
    best = (root / "models" / "model.pt").read_bytes()
    run_configs(BUNDLES[LIVER], RESUME, bundle_root=str(root), **options)
    assert resume_state(root, 4)["best"] == {"_saved": [(0.99, "model.pt")]}
    assert (root / "models" / "model.pt").read_bytes() == best


def test_more_epochs_follow_the_longer_cosine(options, stopped, tmp_path):
    """Two of four epochs planned, then eight: the learning rate is that of epoch 2 to 4 of eight."""
    root = copied(stopped, tmp_path)
    plan = {"max_epochs": 4, "decay_epochs": 8}
    workflow = run_configs(BUNDLES[LIVER], RESUME, bundle_root=str(root), **(options | plan))
    scheduler = workflow.parser.get_parsed_content("lr_scheduler")
    assert scheduler.get_last_lr() == [pytest.approx(1e-3 * 0.5)]


def cause(caught: pytest.ExceptionInfo) -> str:
    return root_cause(caught.value)


@pytest.mark.parametrize(
    ("other", "differs"),
    [
        ({"seed": 1}, ["seed 0 and not 1; give the settings of that run"]),
        ({"learning_rate": 0.5}, ["with learning_rate 0.001 and not 0.5; "]),
        ({"train::trainer::accumulation_steps": 2}, ["with train::trainer::accumulation_steps None and not 2; "]),
        ({"temperature": 2.0, "pmd_weight": 0.3}, ["temperature .* and not 2.0", "pmd_weight .* and not 0.3"]),
        ({"num_classes": 3, "distil": False}, ["num_classes .* and not 3", "distil True and not False"]),
    ],
)
def test_run_of_other_settings_is_not_gone_on_with(options, stopped, tmp_path, other, differs):
    root = copied(stopped, tmp_path)
    with pytest.raises(RuntimeError) as caught:
        run_configs(BUNDLES[LIVER], RESUME, bundle_root=str(root), **(options | other))
    assert re.match("ValueError: the run to resume must have the settings of the checkpoint, but got", cause(caught))
    assert all(re.search(each, cause(caught)) for each in differs)


def test_run_started_anew_is_not_resumed_from_an_older_one(options, straight, tmp_path):
    """It is stopped before its first epoch ends; the same settings, but the labels or the teacher may have changed."""
    root = copied(straight, tmp_path)
    with pytest.raises(RuntimeError):
        run_configs(BUNDLES[LIVER], ["train.yaml"], bundle_root=str(root), **(options | {"loss": "$None"}))
    with pytest.raises(RuntimeError) as caught:
        run_configs(BUNDLES[LIVER], RESUME, bundle_root=str(root), **options)
    assert "must hold a readable checkpoint of `model`" in cause(caught)


def test_nothing_to_resume_is_said(options, tmp_path):
    with pytest.raises(RuntimeError) as caught:
        run_configs(BUNDLES[LIVER], RESUME, bundle_root=str(tmp_path), **options)
    assert "must hold a readable checkpoint of `model`" in cause(caught)
