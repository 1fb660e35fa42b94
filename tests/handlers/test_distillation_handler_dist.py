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

"""Distributed training, on two processes."""

from __future__ import annotations

import multiprocessing
from typing import Any

import pytest
import torch
import torch.distributed as dist

from tests.handlers import two_ranks
from tests.handlers.engine_case import student_net

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (dist.is_available() and dist.is_gloo_available()), reason="needs torch with gloo"),
]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory) -> list[dict[str, Any]]:
    """What each rank found."""
    folder = tmp_path_factory.mktemp("ranks")
    multiprocessing.set_forkserver_preload(["tests.handlers.two_ranks"])  # imported once, not by each process
    processes = torch.multiprocessing.start_processes(
        two_ranks.main, args=(str(folder),), nprocs=2, join=False, start_method="forkserver"
    )
    while not processes.join():
        pass
    return [{"folder": folder} | torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("accumulation", ["", ", accumulated"])
def test_student_and_adapter_are_equal_on_both_ranks_and_to_the_loop_by_hand(ranks, accumulation):
    first, second = (rank[f"handler{accumulation}"] for rank in ranks)
    for result in (second, ranks[0][f"hand{accumulation}"], ranks[1][f"hand{accumulation}"]):
        torch.testing.assert_close(first, result, rtol=0, atol=0)
    starts = {"student": two_ranks.weights(student_net()), "adapter": two_ranks.weights(two_ranks.seeded_adapter(0))}
    for name, start in starts.items():
        assert not any(torch.equal(first[name][key], start[key]) for key in start)


def test_adapter_with_a_gradient_on_one_rank_alone_stays_equal(ranks):
    first, second = (rank["gradient on one rank"]["adapter"] for rank in ranks)
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    start = two_ranks.weights(two_ranks.seeded_adapter(0))
    assert not any(torch.equal(first[key], start[key]) for key in start)


def test_weights_that_set_themselves_are_equal_on_both_ranks(ranks):
    """Also that of a term which has no gradient on one of them: that rank must not leave the others waiting."""
    first, second = (rank["auto"] for rank in ranks)
    assert first["balancer"] == second["balancer"]
    assert set(first["balancer"]["scales"]) == {"soften", "partly"}
    torch.testing.assert_close(first["student"], second["student"], rtol=0, atol=0)


def test_adapter_of_weight_0_is_not_touched(ranks):
    for rank in ranks:
        torch.testing.assert_close(rank["weight 0"]["adapter"], rank["weight 0"]["start"], rtol=0, atol=0)


def test_find_unused_parameters_is_refused_for_layers(ranks):
    for rank in ranks:
        assert rank["unused"]["logits"] is None
        assert rank["unused"]["error"].startswith(
            "ValueError: `find_unused_parameters` must be False where a term listens to a layer, but got True"
        )


def test_handler_missing_on_one_rank(ranks):
    assert ranks[0]["missing"]["error"] == (
        "RuntimeError: `DistillationHandler` must be attached on every rank, but got none on rank 1 within 0:00:01; "
        "keep it out of what a multi-GPU config drops on ranks > 0."
    )
    assert ranks[1]["missing"]["error"] is None


@pytest.mark.parametrize("form", ["", ", accumulated", ", gate"])
def test_adversary_is_equal_on_both_ranks_and_to_the_loop_by_hand(ranks, form):
    first, second = (rank[f"adversary{form}"] for rank in ranks)
    assert first["accuracy"] != second["accuracy"]
    for result in (second, ranks[0][f"adversary by hand{form}"], ranks[1][f"adversary by hand{form}"]):
        for network in ("student", "discriminator"):
            torch.testing.assert_close(first[network], result[network], rtol=0, atol=0)
    start = two_ranks.weights(two_ranks.discriminator_net())
    assert not any(torch.equal(first["discriminator"][key], start[key]) for key in start)


def test_gate_looks_at_the_mean_of_the_ranks(ranks):
    """Some steps are held back, and there is one that a rank by itself would have decided otherwise."""
    own = [rank["adversary, gate"]["accuracy"] for rank in ranks]
    means = [sum(pair) / 2 for pair in zip(*own)]
    assert {mean > two_ranks.GATE for mean in means} == {True, False}
    alone = [(one > two_ranks.GATE) != (other > two_ranks.GATE) for one, other in zip(*own)]
    assert any(alone)


def test_adversary_missing_on_one_rank(ranks):
    assert ranks[0]["adversary missing"]["error"].startswith(
        "RuntimeError: `AdversarialDistillationHandler` must be attached on every rank, but got none on rank 1"
    )
    assert ranks[1]["adversary missing"]["error"] is None
