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

"""A run that ends with a list of what could not be read."""

from __future__ import annotations

from typing import Any

from ignite.engine import Engine, Events

from monai_kd.data.case_name import case_name
from monai_kd.data.readable_items import ReadableItems, reason_line

STOPPED = "the run stopped at"


class FailedItemsHandler:
    """
    Ends an evaluator's run with an error where :py:class:`monai_kd.data.ReadableItems` passed over items: all others
    are done by then, and their results stay. An error in the network or behind it stops the run and names its item.

    Attach it behind handlers that complete the run, such as :py:class:`monai_kd.handlers.FrameTableHandler`, and before
    ``StatsHandler``.

    Args:
        dataset: what the run goes through.

    Raises:
        RuntimeError: as it runs, with all items that were passed over and the reasons.

    Example::

        >>> handler = FailedItemsHandler(ReadableItems([]))
    """

    def __init__(self, dataset: ReadableItems) -> None:
        self.dataset = dataset

    def attach(self, engine: Engine) -> None:
        """Register with an evaluator."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.COMPLETED, self._refuse)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self._name)

    def _start(self, engine: Any) -> None:
        self.dataset.forget_failures()

    def _refuse(self, engine: Any) -> None:
        failures = self.dataset.failures()
        if failures:
            engine.state.batch = None  # no item is at fault
            raise RuntimeError(
                f"{len(failures)} files or frames could not be read, all others are done; "
                f"repair or remove them and run again:{_lines(failures)}"
            )

    def _name(self, engine: Any, error: Exception) -> None:
        batch = engine.state.batch
        if not batch or str(error).startswith(STOPPED):  # ignite says it of an iteration, and of the run
            raise error
        items = batch if isinstance(batch, list) else [batch]
        names = ", ".join(case_name(item) for item in items)
        failures = self.dataset.failures()
        before = f"; before, {len(failures)} could not be read:{_lines(failures)}" if failures else ""
        raise RuntimeError(f"{STOPPED} `{names}`, {reason_line(error)}{before}") from error


def _lines(failures: dict[str, str]) -> str:
    return "".join(f"\n  {case}: {reason}" for case, reason in failures.items())
