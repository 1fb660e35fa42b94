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

"""``multi_gpu_train.yaml`` on two processes without a GPU. The README's command, with torchrun, runs in the walk."""

from __future__ import annotations

import multiprocessing
import socket
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from monai_kd.bundle import bundle_network
from tests.bundles import two_ranks
from tests.bundles.journey import BUNDLES, DATA, LIVER, SMALL

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (dist.is_available() and dist.is_gloo_available()), reason="needs torch with gloo"),
]


def free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture(scope="module")
def root(walked, tmp_path_factory) -> Path:
    """The bundle's root after all runs."""
    folder, root = walked(LIVER), tmp_path_factory.mktemp("ranks")
    override = SMALL[LIVER] | {
        "dataset_dir": str(folder / "data" / DATA[LIVER]),
        "teacher_ckpt": str(folder / LIVER / "models" / "teacher.pt"),
        "batch_size": 2,
        "tensorboard": False,
        "validate::dataset::data": "$@split['test']",  # two processes need two cases
    }
    multiprocessing.set_forkserver_preload(["tests.bundles.two_ranks"])  # imported once, not by each process
    processes = torch.multiprocessing.start_processes(
        two_ranks.main,
        args=(str(root), LIVER, free_ports(len(two_ranks.RUNS)), override),
        nprocs=2,
        join=False,
        start_method="forkserver",
    )
    while not processes.join():
        pass
    return root


@pytest.fixture(scope="module")
def ranks(root) -> list[dict[str, Any]]:
    """What each rank found."""
    return [torch.load(root / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("run", two_ranks.RUNS)
def test_ranks_see_other_slices_and_keep_one_network(ranks, run):
    first, second = (rank[run] for rank in ranks)
    assert not torch.equal(first["images"], second["images"])
    parameters = dict(
        bundle_network(BUNDLES[LIVER], "teacher_def" if run == "teacher" else "student_def").named_parameters()
    )
    assert set(parameters) <= set(first["weights"])
    for key in parameters:
        torch.testing.assert_close(first["weights"][key], second["weights"][key], rtol=0, atol=0)


def test_distillation_runs_on_every_rank(ranks):
    for rank in ranks:
        terms = {f"loss_{term}" for term in ("pmd", "imd", "rad")}
        assert terms <= set(rank["model"]["terms"])
        assert not terms & set(rank["student_alone"]["terms"])
    assert ranks[0]["model"]["terms"]["loss_imd"] != ranks[1]["model"]["terms"]["loss_imd"]


@pytest.mark.parametrize("file", ["teacher.pt", "student_alone.pt", "model.pt"])
def test_weights_are_those_of_the_network_alone(root, file):
    network = bundle_network(BUNDLES[LIVER], "teacher_def" if file == "teacher.pt" else "student_def")
    network.load_state_dict(torch.load(root / "models" / file, weights_only=True), strict=True)


def test_one_epoch_and_one_are_two(ranks):
    torch.testing.assert_close(ranks[0]["halves, resumed"]["weights"], ranks[0]["model"]["weights"], rtol=0, atol=0)
    key = next(iter(ranks[0]["model"]["weights"]))
    assert not torch.equal(ranks[0]["halves"]["weights"][key], ranks[0]["model"]["weights"][key])
