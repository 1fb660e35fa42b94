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

"""What each of two processes does in the tests of correction in distributed training; see ``two_ranks.py``."""

from __future__ import annotations

import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from monai_kd.corrections import AssistantCorrection, CorrectedTeacher, SimilarityCorrection
from monai_kd.handlers import DistillationTerm, FalsePixelHandler, SoftLabelCorrectionHandler
from monai_kd.networks import Teacher
from tests.handlers.engine_case import make_data, soften, student_net, teacher_net
from tests.handlers.training import handler_of, make_trainer
from tests.handlers.two_ranks import error_of, own_data, weights

LENGTH = 12  # of a queue


def corrected() -> dict[str, Any]:
    """Both kinds of correction."""
    student = DistributedDataParallel(student_net())
    parts = [AssistantCorrection(student_net(seed=5)), SimilarityCorrection()]
    handlers = [handler_of(DistillationTerm(soften), teacher=CorrectedTeacher(Teacher(teacher_net()), parts))]
    trainer = make_trainer(student, handlers, data=own_data())
    trainer.run()
    return {"student": weights(student), "metrics": dict(trainer.state.metrics)}


def missing_on_rank_1() -> dict[str, Any]:
    """A configuration for several GPUs that drops the correction on the other ranks."""

    def run() -> None:
        handler = SoftLabelCorrectionHandler([SimilarityCorrection()])
        handler.rank_timeout = timedelta(seconds=1)
        handlers = [handler_of(DistillationTerm(soften)), *([handler] if dist.get_rank() == 0 else [])]
        make_trainer(student_net(), handlers, data=own_data()).run()

    return error_of(run)


def false_pixels() -> dict[str, Any]:
    """Each rank collects its own."""
    student = DistributedDataParallel(student_net())
    handler = FalsePixelHandler(Teacher(teacher_net()), length=LENGTH, draw=4)
    make_trainer(student, [handler], data=own_data()).run()
    return {"student": weights(student), "queues": handler.state_dict()["queues"]}


def alone() -> dict[str, Any]:
    """All images on one rank, for the numbers."""
    parts = [AssistantCorrection(student_net(seed=5)), SimilarityCorrection()]
    handlers = [handler_of(DistillationTerm(soften), teacher=CorrectedTeacher(Teacher(teacher_net()), parts))]
    trainer = make_trainer(student_net(), handlers, data=make_data(16), epochs=1)
    trainer.run()
    return dict(trainer.state.metrics)


def main(rank: int, folder: str) -> None:
    """Do all of the above on one rank of two."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    results = {"corrected": corrected(), "false pixels": false_pixels(), "missing": missing_on_rank_1()}
    torch.save(results, Path(folder) / f"{rank}.pt")
    dist.barrier()
    dist.destroy_process_group()
