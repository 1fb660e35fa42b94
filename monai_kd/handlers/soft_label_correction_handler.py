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

"""Soft labels repaired with the label before the student sees them (PLC-KD)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents

from monai_kd.corrections import CorrectionChain, false_pixels
from monai_kd.corrections.correction_chain import Correction, class_indices
from monai_kd.handlers._event_order import owners
from monai_kd.handlers._ranks import several_ranks
from monai_kd.handlers._start_checks import check_engine, check_ranks, check_weights
from monai_kd.handlers._teacher_student_pair import batch_entry
from monai_kd.handlers.distillation_handler import DistillationHandler
from monai_kd.networks.soft_label import as_logits, as_soft_label
from monai_kd.networks.teacher import plain


class SoftLabelCorrectionHandler:
    """
    Repairs what the teacher of a :py:class:`~monai_kd.handlers.DistillationHandler` says by a chain of corrections, in
    each iteration between the forward passes and the terms. Wang et al., "Progressively Correcting Soft Labels via
    Teacher Team for Knowledge Distillation in Medical Image Segmentation", MICCAI 2024, Sec. 2.1, stage 2:

    .. math:: Y^I = T(X) \\to Y^F \\to Y^B \\to Y^U, \\qquad
        L = L_{seg}(student, label) + \\lambda \\, KL(Y^U || student) \\quad \\text{(Eq. 1)},

    with two :py:class:`~monai_kd.corrections.AssistantCorrection` and one
    :py:class:`~monai_kd.corrections.SimilarityCorrection`. Put it behind the ``DistillationHandler`` in the trainer's
    handlers, on every rank; a part is left out by leaving it out of the list (Table 2).

    Terms go on getting logits. Where a correction has changed the soft label p these are log p, scaled as in
    :py:func:`~monai_kd.networks.soft_label.as_logits`: their softmax is p, and with a temperature T they say p^(1/T),
    scaled to sum 1, as any logits of p do. All other pixels keep the teacher's own logits to the last bit. Terms on
    inner layers or on one member of a team see what they saw before. Of a teacher with several outputs the one of full
    resolution is repaired and the others are dropped, since they would contradict it.

    The assistants see the student's image, or their own ``image_key`` of the batch, in the trainer's precision, in eval
    mode and without gradient; none of their weights is in an optimizer or a checkpoint. The handler has no state.

    At the end of an epoch ``engine.state.metrics`` has ``false_pixels_teacher`` and for each correction
    ``false_pixels_<name>``: the false pixels that are left after this step, mean over the epoch's images of all ranks.
    MONAI's loggers that are attached after it write them.

    Args:
        corrections: in this order, under a name each; of a sequence the names are those of the classes.
        distillation: whose teacher is repaired, where a trainer has several handlers of this kind.

    Raises:
        TypeError: when a correction cannot be called.
        ValueError: when the corrections are none, the trainer does not fire the events, or (as training starts) no
            ``DistillationHandler`` stands before this one, none of its terms sees the teacher's logits, an assistant
            shares weights with the student, or the handler is missing on another rank, or (as it runs) the batch has
            no label, or one that does not fit the teacher's classes.

    Example::

        >>> from monai_kd.corrections import SimilarityCorrection
        >>> handler = SoftLabelCorrectionHandler({"similarity": SimilarityCorrection()})
        >>> list(handler.chain.corrections)
        ['similarity']
    """

    rank_timeout = timedelta(minutes=5)

    def __init__(
        self,
        corrections: Mapping[str, Correction] | Sequence[Correction],
        distillation: DistillationHandler | None = None,
    ) -> None:
        self.chain = CorrectionChain(corrections)
        self.distillation = distillation
        self._corrected: Any = None
        self._counts: torch.Tensor | None = None  # false pixels after each step, and images

    def attach(self, engine: Engine) -> None:
        """Register with a trainer. Attaching twice changes nothing."""
        if engine.has_event_handler(self._start):
            return
        check_engine(engine)
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_STARTED, self._forget_counts)
        engine.add_event_handler(IterationEvents.FORWARD_COMPLETED, self._correct)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._report)

    def _start(self, engine: Any) -> None:
        self._corrected = handler = self._find(engine)
        if all(term.teacher_layers or term.teacher is not None for term in handler.terms.values()):
            raise ValueError(
                f"`terms` must hold one that compares logits with those of the whole teacher, but got "
                f"{list(handler.terms)}, on which a correction has no effect."
            )
        check_ranks(self.chain.corrections, self.rank_timeout, type(self).__name__)
        self.chain.to(engine.state.device)
        student = engine.network if handler.student is None else handler.student
        for assistant in self.chain.assistants.values():
            check_weights(assistant, student, engine.optimizer)

    def _find(self, engine: Any) -> DistillationHandler:
        """The handler whose teacher is repaired, which has to have asked it when this one is called."""
        attached = owners(engine, IterationEvents.FORWARD_COMPLETED)
        handlers = [owner for owner in attached if isinstance(owner, DistillationHandler)]
        if not handlers:
            raise ValueError(
                "`train_handlers` must hold a `DistillationHandler`, whose teacher is corrected, but got "
                "`SoftLabelCorrectionHandler` alone; put one before it."
            )
        if self.distillation is None and len(handlers) > 1:
            raise ValueError(
                f"`distillation` must say whose teacher is corrected, but got None for {len(handlers)} handlers with "
                f"the terms {' and '.join(str(list(handler.terms)) for handler in handlers)}; pass one of them."
            )
        wanted = handlers[0] if self.distillation is None else self.distillation
        if wanted not in attached:
            raise ValueError(
                f"`distillation` must be a handler of this trainer, but got one with the terms {list(wanted.terms)} "
                "that is not attached to it."
            )
        if attached.index(wanted) > attached.index(self):
            raise ValueError(
                "`SoftLabelCorrectionHandler` must be attached after the `DistillationHandler` that asks the teacher, "
                "but got it before; exchange them in `train_handlers`."
            )
        return wanted

    def _correct(self, engine: Any) -> None:
        output, knowledge = engine.state.output, self._corrected.knowledge
        label = output.get("label")
        if not isinstance(label, torch.Tensor):
            raise ValueError(
                f"`label` must come with each batch to correct soft labels with it, but got {type(label).__name__}."
            )
        images = {key: batch_entry(engine, engine.state.batch, key) for key in self._other_keys}
        whole = plain(knowledge.logits)
        logits = whole[: len(label)]  # images without labels follow
        steps = self.chain(as_soft_label(logits), images | {"image": output["image"]}, label)
        before, *_, after = steps.values()
        changed = (after != before).any(1, keepdim=True)
        knowledge.outputs = [torch.cat([torch.where(changed, as_logits(after), logits), whole[len(label) :]])]
        self._count(list(steps.values()), class_indices(label))

    @property
    def _other_keys(self) -> set[str]:
        return self.chain.image_keys - {"image"}

    # what is told of it

    def _forget_counts(self, engine: Any) -> None:
        self._counts = None

    def _count(self, steps: list[torch.Tensor], label: torch.Tensor) -> None:
        counts = [false_pixels(step, label).sum() for step in steps]
        counts.append(torch.full_like(counts[0], len(label)))
        batch = torch.stack(counts).double()
        self._counts = batch if self._counts is None else self._counts + batch

    def _report(self, engine: Any) -> None:
        if self._counts is None:
            return
        if several_ranks():
            dist.all_reduce(self._counts)
        *totals, images = self._counts.tolist()
        for name, total in zip(["teacher", *self.chain.corrections], totals):
            engine.state.metrics[f"false_pixels_{name}"] = total / images
