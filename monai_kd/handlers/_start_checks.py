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

"""What a distillation handler refuses before the first step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from ignite.engine import Events
from monai.engines import AdversarialTrainer, Evaluator, GanTrainer
from monai.handlers import CheckpointLoader
from torch import nn

from monai_kd._private_attributes import handlers_of, process_function, rank_store, trainers_iteration
from monai_kd.corrections import CorrectedTeacher
from monai_kd.handlers._ranks import several_ranks
from monai_kd.handlers.distillation_term import DistillationTerm
from monai_kd.networks import Teacher, TeacherTeam
from monai_kd.networks.shared_memory import named_tensors, numbered, shared_memory


def check_teacher(teacher: Any) -> None:
    """Refuse what is no teacher."""
    if not isinstance(teacher, (Teacher, TeacherTeam)):
        raise TypeError(
            f"`teacher` must be a Teacher or TeacherTeam, but got {type(teacher).__name__}; "
            "pass `Teacher(network, checkpoint)`."
        )


def check_corrected(teacher: Any, terms: Mapping[str, DistillationTerm]) -> None:
    """Refuse terms of which none compares logits with the repaired ones."""
    if not isinstance(teacher, CorrectedTeacher):
        return
    if all(term.teacher_layers or term.teacher is not None for term in terms.values()):
        raise ValueError(
            "`terms` must hold one that compares logits with those of the whole teacher, but got "
            f"{list(terms)}, on which a correction has no effect."
        )


def by_name(
    terms: Sequence[DistillationTerm], teacher: Teacher | TeacherTeam | CorrectedTeacher
) -> dict[str, DistillationTerm]:
    """The terms by their names, two of one name numbered; refuses names that the log uses and unknown members."""
    terms = [terms] if isinstance(terms, DistillationTerm) else list(terms)
    named: dict[str, DistillationTerm] = {}
    for term in terms:
        if not isinstance(term, DistillationTerm):
            raise TypeError(f"`terms` must hold DistillationTerm, but got {type(term).__name__}.")
        if term.teacher is not None and term.teacher not in teacher.members:
            raise ValueError(
                f"`teacher` of term `{term.name}` must be one of {sorted(teacher.members)}, but got `{term.teacher}`."
            )
        activation = getattr(teacher, "activation", None)
        if term.teacher is None and None not in (activation, term.activation) and term.activation != activation:
            raise ValueError(
                f"`activation` of a `TeacherTeam` must be that of the loss of term `{term.name}`, but got "
                f"{activation!r} and {term.activation!r}; pass `TeacherTeam(..., activation={term.activation!r})`."
            )
        if term.name == "supervised" or term.name.endswith("_weighted"):
            raise ValueError(f"`name` of a term must not be one that the log uses, but got `{term.name}`.")
        name, number = term.name, 1
        while name in named:
            number += 1
            name = f"{term.name}_{number}"
        named[name] = term
    return named


def check_engine(engine: Any) -> str:
    """Refuse an engine without the events; returns what to say of one that does not fire them after all."""
    refusal = (
        f"`engine` must fire MONAI's FORWARD_COMPLETED and LOSS_COMPLETED, but got {type(engine).__name__} %s; "
        "the terms could not reach the gradient. Use `SupervisedTrainer` without `iteration_update`."
    )
    iteration = trainers_iteration(engine)
    if iteration is None:
        raise ValueError(refusal % "which is no MONAI trainer")
    if process_function(engine) != iteration:
        raise ValueError(refusal % "with `iteration_update`, which replaces the step that fires them")
    if isinstance(engine, (AdversarialTrainer, Evaluator, GanTrainer)):
        raise ValueError(refusal % "which does not fire them")
    return refusal % "which does not fire them"


def check_loaders(engine: Any, adapters: Iterable[nn.Parameter]) -> None:
    """Refuse a loader that would restore an optimizer before the adapters have joined it."""
    handlers = [handler for handler, *_ in handlers_of(engine, Events.STARTED)]
    wanted = {id(parameter) for parameter in adapters}
    for loaded in (loader.load_dict.values() for loader in handlers if isinstance(loader, CheckpointLoader)):
        groups = [group for each in loaded if isinstance(each, torch.optim.Optimizer) for group in each.param_groups]
        if groups and wanted - {id(parameter) for group in groups for parameter in group["params"]}:
            raise ValueError(
                "`CheckpointLoader` must be attached after `DistillationHandler`, whose adapters join the optimizer as "
                "training starts, but got it before; put the loader behind it in the list of handlers."
            )


def check_names(own: Iterable[str], others: Iterable[Iterable[str]]) -> None:
    """Refuse terms of a name that another handler of the trainer logs under."""
    own = list(own)
    for other in map(list, others):
        common = [name for name in own if name in other]
        if common:
            raise ValueError(
                "What the handlers of one trainer log must have different names, lest they overwrite each other's, but "
                f"got {common} in both {own} and {other}; give `DistillationTerm` another `name`, and a trainer one "
                "`AdversarialDistillationHandler`."
            )


def check_supervised_weights(weights: Sequence[float]) -> None:
    """Refuse several handlers of a trainer that weight its loss: the weights of one would undo those of the other."""
    if sum(weight != 1 for weight in weights) > 1:
        raise ValueError(
            f"`supervised_weight` must be 1 in all but one handler of a trainer, but got {sorted(weights)}; put the "
            "terms into one handler, with a `TeacherTeam` for several teachers."
        )


def check_ranks(names: Iterable[str], timeout: timedelta, handler: str = "DistillationHandler") -> None:
    """
    Refuse a handler that is missing on another rank. Each leaves a note in the store, which needs no help of a rank
    that lacks the handler.
    """
    if not several_ranks():
        return
    store, own = rank_store(), dist.get_rank()
    # what an earlier handler left must not stand for a later one: each rank counts its starts
    start = f"{store.add(f'monai_kd/starts/{own}', 1)}/{','.join(names)}"
    keys = [f"monai_kd/{start}/{rank}" for rank in range(dist.get_world_size())]
    store.set(keys[own], "here")
    for rank, key in enumerate(keys):
        try:
            store.wait([key], timeout)
        except (dist.DistStoreError, RuntimeError) as error:
            raise RuntimeError(
                f"`{handler}` must be attached on every rank, but got none on rank {rank} within "
                f"{timeout}; keep it out of what a multi-GPU config drops on ranks > 0."
            ) from error


def check_weights(
    teacher: Teacher | TeacherTeam | CorrectedTeacher, student: nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Refuse a student whose weights or buffers are the teacher's, and an optimizer that holds the teacher's."""
    frozen = teacher.named_tensors()
    common = shared_memory(frozen, named_tensors(student))
    if common is not None:
        raise ValueError(
            "`teacher` must not share weights or buffers with the student, but got a common one: "
            f"`{common[0]}` of the teacher is `{common[1]}` of the student, and would be trained along; "
            "give `Teacher` a `copy.deepcopy` of its network."
        )
    trained = (parameter for group in optimizer.param_groups for parameter in group["params"])
    held = shared_memory(frozen, numbered(trained))
    if held is not None:
        raise ValueError(
            f"`optimizer` must not hold the teacher's weights, but got `{held[0]}`; "
            "give it `student.parameters()` alone."
        )


def check_discriminator(discriminator: Any, optimizer: Any) -> None:
    """Refuse what is no discriminator, and an optimizer that does not hold its weights, all of them and no others."""
    if not isinstance(discriminator, nn.Module) or not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(
            "`discriminator` must be a module and `optimizer` one of its weights, but got "
            f"{type(discriminator).__name__} and {type(optimizer).__name__}."
        )
    if isinstance(discriminator, nn.parallel.DistributedDataParallel):
        raise ValueError(
            "`discriminator` must not be wrapped, but got DistributedDataParallel; the handler keeps it equal on all "
            "ranks, give it `discriminator.module`."
        )
    own = {id(parameter) for parameter in discriminator.parameters() if parameter.requires_grad}
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    if own != held:
        raise ValueError(
            f"`optimizer` must hold the discriminator's weights, all {len(own)} and no others, but got {len(held)}, "
            f"{len(held & own)} of them the discriminator's; give it `discriminator.parameters()`."
        )


def check_apart(discriminator: nn.Module, others: Mapping[str, torch.Tensor], whose: str) -> None:
    """Refuse a discriminator that has a weight or a buffer in common with others."""
    common = shared_memory(named_tensors(discriminator), others)
    if common is not None:
        raise ValueError(
            f"`discriminator` must have weights of its own, but got one that is also {whose}: `{common[0]}`."
        )


def check_unused_parameters(network: nn.Module) -> None:
    """Refuse a DDP network that does not bear a loss on an inner layer."""
    if getattr(network, "find_unused_parameters", False):
        raise ValueError(
            "`find_unused_parameters` must be False where a term listens to a layer, but got True: DDP would mark "
            "a parameter ready twice."
        )
