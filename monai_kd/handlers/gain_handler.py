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

"""What was gained by distillation, in one line."""

from __future__ import annotations

import json
import logging
from os import PathLike
from pathlib import Path
from typing import Any
from zlib import crc32

from ignite.distributed import get_rank
from ignite.engine import Engine, Events

from monai_kd.data import replace_file
from monai_kd.data.case_name import case_names
from monai_kd.handlers.distillation_handler import DistillationHandler
from monai_kd.networks.isolated_rng import isolated_rng
from monai_kd.networks.weights_checksum import weights_checksum
from monai_kd.networks.weights_facts import read_facts

logger = logging.getLogger("monai_kd")


class GainHandler:
    """
    Says before the first epoch what the teacher scores on the validation cases, and at the end what the student gained
    over the student alone. The score is the key metric of the evaluators, higher is better.

    A teacher below the student alone, or a distilled student below it, is a warning with the likely reason and the
    remedy. The score of the student alone is read from its file of weights
    (:py:class:`~monai_kd.bundle.BestCheckpointSaver` writes it there), and counts where it was measured on the same
    validation cases.

    Put it after the ``DistillationHandler`` in the trainer's handlers, on every rank.

    Args:
        evaluator: validates the student while it trains.
        teacher_evaluator: an evaluator whose network is the teacher's, with the data, the inferer, the postprocessing
            and the metric of ``evaluator``. None: the teacher is not scored.
        baseline: the weights of the student alone, trained with the same settings. The file need not exist.
        cache: JSON file that remembers the teacher's score by its weights and the cases. None: it is measured anew.
        distillation: the handler that distils, which knows the likely reasons.
        remedy: how to get the weights of the student alone, for the last line where they are missing.

    Attributes:
        scores: ``teacher``, ``alone`` and ``distilled``, as far as they are known.

    Raises:
        ValueError: (as training starts) when an evaluator has no key metric.
    """

    def __init__(
        self,
        evaluator: Any,
        teacher_evaluator: Any = None,
        baseline: str | PathLike | None = None,
        cache: str | PathLike | None = None,
        distillation: DistillationHandler | None = None,
        remedy: str = "train the student without a teacher and pass its weights as `baseline`",
    ) -> None:
        self.evaluator = evaluator
        self.teacher_evaluator = teacher_evaluator
        self.baseline = None if baseline is None else Path(baseline)
        self.cache = None if cache is None else Path(cache)
        self.distillation = distillation
        self.remedy = remedy
        self.scores: dict[str, float] = {}
        self._best: float | None = None

    def attach(self, engine: Engine) -> None:
        """Register with a trainer. Attaching twice changes nothing."""
        if engine.has_event_handler(self._start):
            return
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.COMPLETED, self._end)
        self.evaluator.add_event_handler(Events.COMPLETED, self._see)

    # before the first epoch

    def _start(self, engine: Any) -> None:
        if engine.state.iteration == 0:
            self._best = None
        alone = self._of_baseline()
        if alone is not None:
            self.scores["alone"] = alone
        if self.teacher_evaluator is None:
            return
        self.scores["teacher"] = teacher = self._of_teacher()
        if get_rank() > 0:
            return
        logger.info(f"the teacher scores {teacher:.3f} (validation)")
        if alone is not None and teacher < alone:
            logger.warning(
                f"the teacher scores {teacher:.3f}, less than the student alone with {alone:.3f} (validation, "
                f"{self.baseline}). It has little to teach: train it longer, start it from pre-trained weights, or "
                "take a larger network."
            )

    def _of_teacher(self) -> float:
        key = self._key()
        known = self._cached()
        if key in known:
            return float(known[key])
        with isolated_rng():  # a loader draws a seed as it starts
            self.teacher_evaluator.run()
        score = self._metric(self.teacher_evaluator)
        if self.cache is not None and get_rank() == 0:
            replace_file(self.cache, json.dumps(known | {key: score}, indent=1))
        return score

    def _cached(self) -> dict[str, float]:
        if self.cache is None or not self.cache.is_file():
            return {}
        try:
            return dict(json.loads(self.cache.read_text("utf-8")))
        except ValueError:  # damaged: measured anew
            return {}

    def _key(self) -> str:
        """The teacher's weights and the cases."""
        checksum = weights_checksum(self.teacher_evaluator.network)
        return f"weights {checksum:08x}, cases {validation_cases(self.evaluator):08x}"

    @staticmethod
    def _metric(evaluator: Any) -> float:
        name = evaluator.state.key_metric_name
        if name is None:
            raise ValueError("The evaluators of `GainHandler` must have a `key_val_metric`, but got one without it.")
        return float(evaluator.state.metrics[name])

    def _of_baseline(self) -> float | None:
        """The score of the student alone, if it was measured on these cases."""
        if self.baseline is None or not self.baseline.is_file():
            return None
        facts = read_facts(self.baseline)
        if facts.get("cases") != validation_cases(self.evaluator):
            return None
        return facts.get("score")

    # while it trains, and at the end

    def _see(self, evaluator: Any) -> None:
        score = self._metric(evaluator)
        self._best = score if self._best is None else max(self._best, score)

    def _end(self, engine: Any) -> None:
        if self._best is None or get_rank() > 0:
            return
        self.scores["distilled"] = self._best
        sentence, gained = self.sentence()
        (logger.info if gained else logger.warning)(sentence)

    def sentence(self) -> tuple[str, bool]:
        """
        Returns:
            what was gained in one line, and whether nothing speaks against the distillation.
        """
        distilled, alone = self.scores["distilled"], self.scores.get("alone")
        if alone is None:
            return f"distilled {distilled:.3f} (validation). To see what was gained, {self.remedy}.", True
        gain = distilled - alone
        line = f"distilled {distilled:.3f}, alone {alone:.3f} (validation, the file {self.baseline}): {gain:+.3f}"
        if gain >= 0:
            return line, True
        return f"{line}. Distillation did not help: {self._reason()}", False

    def _reason(self) -> str:
        teacher, alone = self.scores.get("teacher"), self.scores["alone"]
        if teacher is not None and teacher < alone:
            return "the teacher scores less than the student alone; train it longer or take a larger one."
        handler = self.distillation
        if handler is not None:
            if handler.term_weights.balancer.damping < 1:
                return "the student stopped learning under the terms; lower `auto_share`."
            fixed = [name for name, term in handler.terms.items() if not term.auto]
            if fixed:
                return f"the weight of {', '.join(fixed)} was chosen by hand; try `weight='auto'`."
        return (
            "the difference may be chance; compare both on more cases and seeds, train longer, or add images without "
            "labels."
        )

    # what a checkpoint needs

    def state_dict(self) -> dict[str, Any]:
        """The best score so far."""
        return {"best": self._best}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what :py:meth:`state_dict` gave."""
        self._best = state_dict["best"]


def validation_cases(evaluator: Any) -> int:
    """A checksum of the names of the cases that an evaluator sees, or of their number."""
    dataset = getattr(getattr(evaluator, "data_loader", None), "dataset", None)
    names = sorted(case_names(dataset))
    length = len(dataset) if dataset is not None else 0
    return crc32("|".join(names or [str(length)]).encode())
