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

"""When a log gets a line."""

from __future__ import annotations

from ignite.engine import Engine


def ends_epoch(engine: Engine, iteration: int) -> bool:
    """
    Tell whether an iteration is the last one of its epoch.

    Args:
        engine: the trainer.
        iteration: number of the iteration since the training began, from 1.

    Example, in a bundle's ``StatsHandler``::

        iteration_log:
          _target_: monai_kd.bundle.ends_epoch
          _mode_: callable
    """
    return iteration % int(engine.state.epoch_length or 1) == 0
