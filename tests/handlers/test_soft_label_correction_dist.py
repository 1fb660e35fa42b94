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

"""Correction in distributed training, on two processes."""

from __future__ import annotations

import multiprocessing
from typing import Any

import pytest
import torch
import torch.distributed as dist

from tests.handlers import two_ranks_corrected
from tests.handlers.engine_case import student_net

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (dist.is_available() and dist.is_gloo_available()), reason="needs torch with gloo"),
    pytest.mark.filterwarnings("ignore:.*drowns the supervised loss:UserWarning"),
]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory) -> list[dict[str, Any]]:
    """What each rank found."""
    folder = tmp_path_factory.mktemp("ranks")
    multiprocessing.set_forkserver_preload(["tests.handlers.two_ranks_corrected"])  # imported once
    processes = torch.multiprocessing.start_processes(
        two_ranks_corrected.main, args=(str(folder),), nprocs=2, join=False, start_method="forkserver"
    )
    while not processes.join():
        pass
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("run", ["corrected", "false pixels"])
def test_student_is_equal_on_both_ranks(ranks, run):
    first, second = (rank[run]["student"] for rank in ranks)
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert not any(torch.equal(first[name], value) for name, value in student_net().named_parameters())


def test_counts_are_those_of_all_ranks(ranks):
    first, second = (rank["corrected"]["metrics"] for rank in ranks)
    assert first == second
    assert first == pytest.approx(two_ranks_corrected.alone())
    assert first["false_pixels_teacher"] > first["false_pixels_assistant"] > first["false_pixels_similarity"] == 0


def test_each_rank_has_its_own_queues(ranks):
    first, second = (rank["false pixels"]["queues"] for rank in ranks)
    for number in ("0", "1"):
        assert first[number].shape == second[number].shape == (two_ranks_corrected.LENGTH, 1)
        assert not torch.equal(first[number], second[number])


def test_handler_missing_on_one_rank(ranks):
    assert ranks[0]["missing"]["error"] == (
        "RuntimeError: `SoftLabelCorrectionHandler` must be attached on every rank, but got none on rank 1 within "
        "0:00:01; keep it out of what a multi-GPU config drops on ranks > 0."
    )
