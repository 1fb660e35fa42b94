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

"""Handlers that write files, attached when a run is checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def attach_writers(trainer: Any, evaluator: Any, train: Sequence[Any], validation: Sequence[Any]) -> None:
    """
    Attach what writes files to a trainer and its evaluator.

    A bundle does this after :py:func:`~monai_kd.bundle.log_run`. Writers are built then, and some
    make their folders as they are built. So a run that is refused leaves nothing behind.

    Args:
        trainer: a MONAI trainer.
        evaluator: the MONAI evaluator that validates it.
        train: handlers for the trainer.
        validation: handlers for the evaluator.

    Example, in a bundle's ``initialize``::

        - _target_: monai_kd.bundle.attach_writers
          trainer: '@train::trainer'
          evaluator: '@validate::evaluator'
          train: '@train::writers'
          validation: '@validate::writers'
    """
    for writer in train:
        writer.attach(trainer)
    for writer in validation:
        writer.attach(evaluator)
