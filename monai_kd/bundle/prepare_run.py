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

"""What happens between the parsing of a bundle and its training."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from monai_kd.bundle.log_run import log_run


def prepare_run(
    trainer: Any,
    evaluator: Any,
    handlers: Sequence[Any],
    checkpoint: str | os.PathLike,
    train_writers: Sequence[Any] = (),
    validation_writers: Sequence[Any] = (),
) -> None:
    """
    Log and check a training, and then attach what writes files.

    Writers come last, so a run that is refused leaves nothing behind.

    Args:
        trainer: a MONAI trainer.
        evaluator: the MONAI evaluator that validates it.
        handlers: the trainer's handlers.
        checkpoint: file of the best weights.
        train_writers: handlers for the trainer that write files.
        validation_writers: handlers for the evaluator that write files.

    Raises:
        ValueError: as :py:func:`~monai_kd.bundle.log_run`.

    Example, in a bundle's ``initialize``::

        - _target_: monai_kd.bundle.prepare_run
          trainer: '@train::trainer'
          evaluator: '@validate::evaluator'
          handlers: '@train::all_handlers'
          checkpoint: '@best_ckpt'
          train_writers: '@train::writers'
          validation_writers: '@validate::writers'
    """
    log_run(trainer, evaluator, handlers, checkpoint)
    for writer in train_writers:
        writer.attach(trainer)
    for writer in validation_writers:
        writer.attach(evaluator)
