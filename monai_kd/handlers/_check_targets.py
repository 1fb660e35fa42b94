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

"""The student is not saved over the weights that it learns from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ignite.engine import Engine, Events
from monai.handlers import CheckpointSaver, ValidationHandler

from monai_kd._private_attributes import best_checkpoint, last_checkpoint
from monai_kd.handlers._event_order import owners


def check_targets(trainer: Engine, files: Iterable[Path]) -> None:
    """
    Refuse checkpoints that would replace the weights of a teacher.

    Looks at MONAI's ``CheckpointSaver`` of the trainer and of the evaluators that validate it.

    Args:
        trainer: a MONAI trainer, before its first epoch.
        files: the files that the weights of the teachers come from.

    Raises:
        ValueError: when a saver writes to one of them.
    """
    kept = {file.resolve() for file in files}
    for target in _targets(trainer) if kept else ():
        if target.resolve() in kept:
            raise ValueError(
                f"The student must not be saved over the weights of its teacher, but a `CheckpointSaver` writes to "
                f"{target}, which the teacher was read from; give the saver another `save_dir` or file name, or copy "
                "the teacher's weights elsewhere and read that file."
            )


def _targets(trainer: Engine) -> Iterator[Path]:
    """The files of fixed names that savers write."""
    of_trainer = _owners(trainer)
    validators = [each.validator for each in of_trainer if isinstance(each, ValidationHandler)]
    of_validators = [each for validator in validators if validator is not None for each in _owners(validator)]
    for saver in [*of_trainer, *of_validators]:
        if isinstance(saver, CheckpointSaver):
            yield from _files(saver)


def _owners(engine: Engine) -> list[Any]:
    return [*owners(engine, Events.EPOCH_COMPLETED), *owners(engine, Events.COMPLETED)]


def _files(saver: CheckpointSaver) -> Iterator[Path]:
    if hasattr(saver, "path"):  # our saver of the best weights
        yield Path(saver.path)
    for checkpoint in (last_checkpoint(saver), best_checkpoint(saver)):  # whose files may have fixed names
        filename = getattr(getattr(checkpoint, "save_handler", None), "filename", None)
        if filename is not None:
            yield Path(saver.save_dir) / filename


def remove_savers(trainer: Engine) -> list[CheckpointSaver]:
    """Let no saver of the last weights write when the training ends with an error; returns those that would have."""
    found = [each for each in owners(trainer, Events.EXCEPTION_RAISED) if isinstance(each, CheckpointSaver)]
    for saver in found:
        trainer.remove_event_handler(saver.exception_raised, Events.EXCEPTION_RAISED)
    return found


def add_savers(trainer: Engine, savers: Iterable[CheckpointSaver]) -> None:
    """Undo :py:func:`remove_savers`."""
    for saver in savers:
        trainer.add_event_handler(Events.EXCEPTION_RAISED, saver.exception_raised)
