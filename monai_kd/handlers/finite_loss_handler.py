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

"""Stops a training whose loss is not finite, before the step that would spoil the weights."""

from __future__ import annotations

from typing import Any

import torch
from ignite.engine import Engine
from monai.engines.utils import IterationEvents


class FiniteLossHandler:
    """
    Stops a MONAI trainer whose loss is NaN or infinite, in that iteration, before the backward pass: its weights stay
    as they are. :py:class:`~monai_kd.handlers.DistillationHandler` checks it by itself; this is for trainings without.

    Raises:
        ValueError: (as it runs) when the loss is not finite.

    Example::

        >>> handler = FiniteLossHandler()
    """

    def attach(self, engine: Engine) -> None:
        """Register with a trainer. Attaching twice changes nothing."""
        if not engine.has_event_handler(self, IterationEvents.LOSS_COMPLETED):
            engine.add_event_handler(IterationEvents.LOSS_COMPLETED, self)

    def __call__(self, engine: Any) -> None:
        """Look at the loss of the iteration."""
        state = engine.state
        loss = state.output["loss"]
        if not torch.isfinite(loss):
            raise ValueError(
                f"`loss_function` must give a finite loss, but got {loss.item()} (epoch {state.epoch}, iteration "
                f"{state.iteration}); look at the images and labels of this batch, or lower the learning rate."
            )
