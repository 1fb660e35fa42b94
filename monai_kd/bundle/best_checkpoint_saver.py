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

"""The best weights so far, in a file that is always whole."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ignite.distributed import get_rank
from ignite.engine import Engine, Events
from monai.handlers import CheckpointSaver

from monai_kd._private_attributes import best_checkpoint, metadata_of
from monai_kd.bundle.check_finite import check_finite
from monai_kd.bundle.write_weights import write_weights
from monai_kd.handlers.gain_handler import validation_cases
from monai_kd.networks.weights_facts import with_facts


class BestCheckpointSaver(CheckpointSaver):
    """
    Saves the weights of the best epoch to one file, which is replaced as a whole: a run that is killed while it
    writes leaves the best weights until then. MONAI's ``CheckpointSaver`` with ``key_metric_filename`` deletes them
    first and writes in place, and leaves half a file or none.

    Attach it to the evaluator that validates. ``state_dict`` and ``load_state_dict`` carry the best score over a
    resume, so that worse epochs do not replace the file. Weights that are not finite are never saved: they end the run
    with a ValueError (:py:func:`~monai_kd.bundle.check_finite.check_finite`).

    The file also says what it holds (:py:func:`~monai_kd.networks.weights_facts.read_facts`): the score, the name of
    the metric, a checksum of the cases that it was measured on, and ``facts``.

    Args:
        path: the file; its folder is made if it is missing.
        save_dict: what to save, under a name each; of a single object its state is saved without the name.
        last: whether each epoch that is validated replaces the file, whatever its score: for a network whose score does
            not say how good it is for its purpose.
        facts: what the weights are trained for, as the image size: texts, numbers, lists and mappings of them.
        image_key: of the validation batches. With it the file also says which spacings their images had, as the least
            and the largest one in mm of each axis. None for images without a size in mm, as photographs.

    Example::

        >>> import tempfile, torch
        >>> saver = BestCheckpointSaver(f"{tempfile.mkdtemp()}/model.pt", {"model": torch.nn.Linear(2, 1)})
        >>> saver.state_dict()["_saved"]
        []
    """

    def __init__(
        self,
        path: str | os.PathLike,
        save_dict: Mapping[str, Any],
        last: bool = False,
        facts: Mapping[str, Any] | None = None,
        image_key: str | None = None,
    ) -> None:
        self.path = Path(path)
        self.facts = dict(facts or {})
        self.image_key = image_key
        super().__init__(str(self.path.parent), dict(save_dict), save_key_metric=True, key_metric_greater_or_equal=last)
        score = best_checkpoint(self).score_function

        def finite_score(engine: Engine) -> float:
            check_finite(save_dict)
            found = score(engine)
            self.facts |= {
                "score": float(found),
                "metric": engine.state.key_metric_name,
                "cases": validation_cases(engine),
            }
            return 0.0 if last else _or_least(found)

        best_checkpoint(self).score_function = finite_score
        best_checkpoint(self).save_handler = self._replace  # ignite calls no `remove` of a plain function

    def attach(self, engine: Engine) -> None:
        """
        Args:
            engine: the evaluator that validates.
        """
        super().attach(engine)
        if self.image_key is not None:
            engine.add_event_handler(Events.ITERATION_COMPLETED, self._see_spacing)

    def _see_spacing(self, engine: Engine) -> None:
        """Widen the range of the spacings that were seen."""
        for item in engine.state.batch:
            found = [float(f"{size:.4g}") for size in item[self.image_key].pixdim.tolist()]
            least, most = self.facts.get("spacing", (found, found))
            self.facts["spacing"] = [list(map(min, least, found)), list(map(max, most, found))]

    def state_dict(self) -> dict[str, Any]:
        """The best score so far."""
        return best_checkpoint(self).state_dict()

    def _replace(self, checkpoint: Mapping[str, Any], filename: str, metadata: Mapping[str, Any] | None = None) -> None:
        if get_rank() == 0:
            write_weights(self._with_facts(checkpoint), self.path)

    def _with_facts(self, checkpoint: Mapping[str, Any]) -> Mapping[str, Any]:
        """The weights, whose first part with metadata carries the facts."""
        for part in (checkpoint, *checkpoint.values()):
            if metadata_of(part) is not None:
                with_facts(part, self.facts)
                break
        return checkpoint


def _or_least(score: float) -> float:
    """An undefined score would never be replaced by a better one."""
    return -math.inf if math.isnan(score) else score
