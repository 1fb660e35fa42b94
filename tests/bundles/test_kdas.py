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

"""The bundle polyp_endoscopy_kdas, trained in pieces, on two processes, and without its terms."""

from __future__ import annotations

import multiprocessing
from typing import Any

import pytest
import torch
import torch.distributed as dist

from tests.bundles import two_ranks
from tests.bundles.journey import BUNDLES, DATA, POLYP, SMALL, resume_state, run_configs
from tests.bundles.test_multi_gpu import free_ports

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def options(walked) -> dict[str, Any]:
    """A short distillation from the teacher of the walk."""
    folder = walked(POLYP)
    return SMALL[POLYP] | {
        "dataset_dir": str(folder / "data" / DATA[POLYP]),
        "teacher_ckpt": str(folder / POLYP / "models" / "teacher.pt"),
        "tensorboard": False,
        "batch_size": 2,
    }


def test_one_epoch_and_one_are_two(options, tmp_path):
    roots = [tmp_path / "whole", tmp_path / "halves"]
    run_configs(BUNDLES[POLYP], ["train.yaml"], bundle_root=str(roots[0]), **(options | {"max_epochs": 2}))
    run_configs(BUNDLES[POLYP], ["train.yaml"], bundle_root=str(roots[1]), **options)
    resumed = ["train.yaml", "resume.yaml"]
    run_configs(BUNDLES[POLYP], resumed, bundle_root=str(roots[1]), **(options | {"max_epochs": 2}))
    one, two = (resume_state(root, 2) for root in roots)
    for key in ("model", "optimizer"):
        torch.testing.assert_close(one[key], two[key], rtol=0, atol=0)
    assert one["best"] == two["best"]
    assert any(not torch.equal(one["model"][key], value) for key, value in resume_state(roots[1], 1)["model"].items())


def test_weights_of_0_are_the_student_alone(options, tmp_path):
    none = {"at_weight": 0, "sgm_weight": 0, "supervised_weight": 1.0}
    for name, own in {"alone": {"distil": False}, "zero": none, "kdas": {}}.items():
        run_configs(BUNDLES[POLYP], ["train.yaml"], bundle_root=str(tmp_path), **(options | own | {"ckpt_name": name}))
    alone, zero, kdas = (resume_state(tmp_path, 1, name)["model"] for name in ("alone", "zero", "kdas"))
    torch.testing.assert_close(alone, zero, rtol=0, atol=0)
    assert any(not torch.equal(alone[key], value) for key, value in kdas.items())


@pytest.mark.skipif(not (dist.is_available() and dist.is_gloo_available()), reason="needs torch with gloo")
def test_two_ranks_keep_one_student(options, tmp_path):
    multiprocessing.set_forkserver_preload(["tests.bundles.two_ranks"])  # imported once, not by each process
    torch.multiprocessing.start_processes(
        two_ranks.main,
        args=(str(tmp_path), POLYP, free_ports(1), options, {"model": (["train.yaml"], {})}),
        nprocs=2,
        start_method="forkserver",
    )
    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True)["model"] for rank in range(2))
    assert not torch.equal(first["images"], second["images"])
    assert {"loss_at", "loss_sgm"} <= set(first["terms"])
    for key, value in first["weights"].items():
        if "running" not in key and "num_batches" not in key:  # DDP leaves those of each rank as they are
            torch.testing.assert_close(value, second["weights"][key], rtol=0, atol=0)
