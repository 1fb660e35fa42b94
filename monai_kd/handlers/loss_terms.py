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

"""What loggers show of a distillation step."""

from __future__ import annotations

from typing import Any

import torch

PREFIXES = ("loss", "weight_", "gradient_ratio", "discriminator_accuracy")


def loss_terms(output: Any) -> dict[str, float]:
    """
    The loss and all its parts as a dictionary of floats: the ``output_transform`` for MONAI's ``StatsHandler``,
    ``TensorBoardStatsHandler`` and ``MLFlowHandler``.

    Args:
        output: ``engine.state.output``, a dictionary or, after decollation, a list of them.

    Returns:
        ``loss`` (what was optimised), ``loss_supervised``, for each term ``loss_<name>`` and
        ``loss_<name>_weighted``, ``weight_<name>`` of a weight that sets itself, and in the iterations in which it was
        measured ``gradient_ratio_<name>``; of
        :py:class:`~monai_kd.handlers.AdversarialDistillationHandler` also ``discriminator_accuracy``.

    Example::

        >>> loss_terms([{"pred": None, "loss": 1.5, "loss_kd": 0.5}])
        {'loss': 1.5, 'loss_kd': 0.5}
    """
    if isinstance(output, (list, tuple)):
        output = output[0]
    parts = {key: value for key, value in output.items() if key.startswith(PREFIXES)}
    return {str(key): value.item() if isinstance(value, torch.Tensor) else float(value) for key, value in parts.items()}
