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

"""Soft labels repaired with the label: the old form, see ``CorrectedTeacher``."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from ignite.engine import Engine, Events

from monai_kd.corrections import CorrectedTeacher, CorrectionChain
from monai_kd.corrections.correction_chain import Correction
from monai_kd.handlers._event_order import owners
from monai_kd.handlers._start_checks import check_corrected, check_engine, check_ranks, check_weights
from monai_kd.handlers._teacher_student_pair import RANK_TIMEOUT
from monai_kd.handlers.distillation_handler import DistillationHandler


class SoftLabelCorrectionHandler:
    """
    Deprecated. Give the :py:class:`~monai_kd.handlers.DistillationHandler` a
    :py:class:`~monai_kd.corrections.CorrectedTeacher` as its teacher. This handler does it as
    training starts and takes it back as training ends, with the same numbers.

    Args:
        corrections: as of :py:class:`~monai_kd.corrections.CorrectedTeacher`.
        distillation: whose teacher is corrected, where a trainer has several handlers of this kind.

    Raises:
        TypeError: when a correction cannot be called.
        ValueError: when there is no correction, the trainer does not fire the events, or (as training starts) no
            ``DistillationHandler`` stands before this one, none of its terms compares the teacher's logits, an
            assistant shares weights with the student, or the handler is missing on another rank.

    Example::

        >>> import warnings
        >>> from monai_kd.corrections import SimilarityCorrection
        >>> with warnings.catch_warnings():
        ...     warnings.simplefilter("ignore")
        ...     handler = SoftLabelCorrectionHandler({"similarity": SimilarityCorrection()})
        >>> list(handler.chain.corrections)
        ['similarity']
    """

    rank_timeout = RANK_TIMEOUT

    def __init__(
        self,
        corrections: Mapping[str, Correction] | Sequence[Correction],
        distillation: DistillationHandler | None = None,
    ) -> None:
        warnings.warn(
            "`SoftLabelCorrectionHandler` goes with the next release; pass "
            "`DistillationHandler(CorrectedTeacher(teacher, corrections), ...)`.",
            FutureWarning,
            stacklevel=2,
        )
        self.chain = CorrectionChain(corrections)
        self.distillation = distillation
        self._changed: tuple[DistillationHandler, Any] | None = None  # and its own teacher

    def attach(self, engine: Engine) -> None:
        """Register with a trainer. Attaching twice changes nothing."""
        if engine.has_event_handler(self._start):
            return
        check_engine(engine)
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.TERMINATE, self._restore)
        engine.add_event_handler(Events.COMPLETED, self._restore)

    def _start(self, engine: Any) -> None:
        self._restore(engine)
        handler = self._find(engine)
        own: Any = handler.pair.teacher
        teacher = CorrectedTeacher(own, self.chain.corrections)
        check_corrected(teacher, handler.terms)
        check_ranks(self.chain.corrections, self.rank_timeout, type(self).__name__)
        teacher.to(engine.state.device)
        student = engine.network if handler.student is None else handler.student
        check_weights(teacher, student, engine.optimizer)
        self._changed = handler, own
        handler.pair.teacher = teacher

    def _restore(self, engine: Any) -> None:
        if self._changed is not None:
            handler, teacher = self._changed
            handler.pair.teacher = teacher
        self._changed = None

    def _find(self, engine: Any) -> DistillationHandler:
        """The handler whose teacher is corrected, which has to have started when this one does."""
        attached = owners(engine, Events.STARTED)
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
