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

"""What each of two processes does in the tests of distributed training; its results are left in a folder."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from ignite.engine import Events
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from monai_kd.handlers import DistillationTerm
from monai_kd.networks import ChannelAdapter
from tests.handlers.adversarial_case import adversary, discriminator_net, teacher_nets
from tests.handlers.adversarial_case import loop_by_hand as adversarial_by_hand
from tests.handlers.engine_case import hint, make_data, seeded, soften, student_net, teacher_net
from tests.handlers.training import distil, handler_of, loop_by_hand, make_trainer

GATE = 0.55  # holds some of the discriminator's steps back


def seeded_adapter(seed: int) -> Any:
    """Another one on each rank, until training starts."""
    return seeded(lambda: nn.Sequential(nn.Conv2d(4, 6, 1, bias=False), nn.Conv2d(6, 6, 1)), seed)


def weights(module: nn.Module) -> dict[str, torch.Tensor]:
    """The parameters, without the buffers: DDP leaves the running statistics of each rank as they are."""
    return {name.removeprefix("module."): value.detach().clone() for name, value in module.named_parameters()}


def own_data() -> list[dict[str, torch.Tensor]]:
    """This rank's half of the case."""
    return make_data(16)[dist.get_rank() :: 2]


def by_handler(accumulation: int = 1) -> dict[str, Any]:
    """Logits, and a layer with an adapter."""
    student, adapter = DistributedDataParallel(student_net()), seeded_adapter(dist.get_rank())
    terms = [DistillationTerm(soften, 0.5), DistillationTerm(hint, 0.25, "norm", "norm", adapter)]
    distil(student, terms, data=own_data(), accumulation_steps=accumulation)
    return {"student": weights(student), "adapter": weights(adapter)}


def by_hand(accumulation: int = 1) -> dict[str, Any]:
    """The same as one would write it out for two ranks: the mean of the gradients after each backward pass."""
    student, adapter = student_net(), seeded_adapter(0)

    def mean_gradients(module: nn.Module) -> None:
        for parameter in module.parameters():
            dist.all_reduce(parameter.grad)
            parameter.grad /= 2

    loop_by_hand(
        student,
        teacher_net(),
        lambda s, t, *_: [0.5 * soften(s["head"], t["head"]), 0.25 * hint(adapter(s["norm"]), t["norm"])],
        adapters=[adapter],
        accumulation=accumulation,
        batches=list(torch.utils.data.DataLoader(own_data(), batch_size=2)),
        mean_gradients=mean_gradients,
    )
    return {"student": weights(student), "adapter": weights(adapter)}


def gradient_on_one_rank() -> dict[str, Any]:
    """A term that on rank 1 is a constant: the class that it compares is not there, say."""
    adapter = seeded_adapter(0)

    def partly(student: torch.Tensor, teacher: torch.Tensor, label: Any) -> torch.Tensor:
        return hint(student, teacher) if dist.get_rank() == 0 else torch.zeros(())

    term = DistillationTerm(partly, 0.25, "norm", "norm", adapter, name="partly")
    distil(DistributedDataParallel(student_net()), [term], data=own_data())
    return {"adapter": weights(adapter)}


def auto_weights() -> dict[str, Any]:
    """Weights that set themselves: of a term with a gradient on each rank, and of one with it on rank 0 alone."""

    def partly(student: torch.Tensor, teacher: torch.Tensor, label: Any) -> torch.Tensor:
        return hint(student, teacher) if dist.get_rank() == 0 else 1 + 0 * student.sum()

    student = DistributedDataParallel(student_net())
    terms = [DistillationTerm(soften, "auto"), DistillationTerm(partly, "auto", name="partly")]
    handler, _ = distil(student, terms, data=own_data(), monitor_interval=1)
    return {"student": weights(student), "balancer": handler.term_weights.balancer.state_dict()}


def weight_0() -> dict[str, Any]:
    """Weight decay must not reach an adapter that no term uses yet, as it does not on one process."""
    student, adapter = DistributedDataParallel(student_net()), seeded_adapter(0)
    optimizer = torch.optim.AdamW(student.parameters(), lr=0.1, weight_decay=0.1)
    distil(student, [DistillationTerm(hint, 0.0, "norm", "norm", adapter)], data=own_data(), optimizer=optimizer)
    return {"adapter": weights(adapter), "start": weights(seeded_adapter(0))}


def adversarial(accumulation: int = 1, max_accuracy: float | None = None) -> dict[str, Any]:
    """Two teachers, and a discriminator that is another one on each rank, until training starts."""
    discriminator = discriminator_net(seed=4 + dist.get_rank())
    handler = adversary(teacher_nets(2), discriminator=discriminator, max_accuracy=max_accuracy)
    student = DistributedDataParallel(student_net())
    trainer = make_trainer(student, [handler], data=own_data(), accumulation_steps=accumulation)
    accuracy = []
    trainer.add_event_handler(
        Events.ITERATION_COMPLETED,
        lambda engine: accuracy.append(float(engine.state.output[0]["discriminator_accuracy"])),
    )
    trainer.run()
    return {"student": weights(student), "discriminator": weights(discriminator), "accuracy": accuracy}


def adversarial_with_mean_gradients(accumulation: int = 1, max_accuracy: float = 1.0) -> dict[str, Any]:
    """The same as one would write it out for two ranks: means of gradients and of the accuracy before each step."""
    student, discriminator = student_net(), discriminator_net()

    def mean(tensors: list[torch.Tensor]) -> None:
        for tensor in tensors:
            dist.all_reduce(tensor)
            tensor /= 2

    log = adversarial_by_hand(
        student,
        teacher_nets(2),
        discriminator,
        accumulation=accumulation,
        in_turn=lambda step: [step % 2],
        max_accuracy=max_accuracy,
        batches=list(torch.utils.data.DataLoader(own_data(), batch_size=2)),
        mean=mean,
    )
    accuracy = [own["discriminator_accuracy"] for own in log]
    return {"student": weights(student), "discriminator": weights(discriminator), "accuracy": accuracy}


def adversary_missing_on_rank_1() -> dict[str, Any]:
    """As with the other handler."""

    def run() -> None:
        handler = adversary(teacher_nets(1))
        handler.rank_timeout = timedelta(seconds=1)
        make_trainer(student_net(), [handler] if dist.get_rank() == 0 else []).run()

    return error_of(run)


def error_of(call: Callable[[], Any]) -> dict[str, Any]:
    """The error of a call, as text."""
    try:
        call()
    except (RuntimeError, ValueError) as error:
        return {"error": f"{type(error).__name__}: {error}"}
    return {"error": None}


def unused_parameters() -> dict[str, Any]:
    """What DDP could not bear, for a layer and for logits."""
    student = DistributedDataParallel(student_net(), find_unused_parameters=True)
    term = DistillationTerm(hint, 0.25, "norm", "norm", ChannelAdapter(4, 6))
    logits = error_of(lambda: distil(student, [DistillationTerm(soften)], data=own_data()))["error"]
    return error_of(lambda: distil(student, [term], data=own_data())) | {"logits": logits}


def missing_on_rank_1() -> dict[str, Any]:
    """A configuration for several GPUs that drops handlers on the other ranks."""

    def run() -> None:
        handler = handler_of(DistillationTerm(soften))
        handler.rank_timeout = timedelta(seconds=1)
        make_trainer(student_net(), [handler] if dist.get_rank() == 0 else []).run()

    return error_of(run)


def main(rank: int, folder: str) -> None:
    """Do all of the above on one rank of two."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    results = {
        "handler": by_handler(),
        "hand": by_hand(),
        "handler, accumulated": by_handler(accumulation=2),
        "hand, accumulated": by_hand(accumulation=2),
        "gradient on one rank": gradient_on_one_rank(),
        "auto": auto_weights(),
        "weight 0": weight_0(),
        "unused": unused_parameters(),
        "adversary": adversarial(),
        "adversary by hand": adversarial_with_mean_gradients(),
        "adversary, accumulated": adversarial(accumulation=2),
        "adversary by hand, accumulated": adversarial_with_mean_gradients(accumulation=2),
        "adversary, gate": adversarial(max_accuracy=GATE),
        "adversary by hand, gate": adversarial_with_mean_gradients(max_accuracy=GATE),
        "missing": missing_on_rank_1(),  # last: the ranks have started another number of handlers from here on
        "adversary missing": adversary_missing_on_rank_1(),
    }
    torch.save(results, Path(folder) / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
