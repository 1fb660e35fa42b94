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

"""Whether the values of an iteration are finite, before they reach a gradient."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from monai_kd.networks import Knowledge
from monai_kd.networks._plain import plain


def check_finite(
    names: Sequence[str], state: Any, student: Knowledge, teacher: Knowledge, supervised: torch.Tensor | None = None
) -> None:
    """
    Refuse NaN and infinity in the terms and in the trainer's own loss, with one wait for the device. In mixed precision
    too: a scaler that skips the step makes the scale smaller, on which the loss before it does not depend.

    Args:
        names: the terms, whose values are in the output as ``loss_<name>``.
        state: the engine's.
        student: its outputs, to say where it came from.
        teacher: the teacher's.
        supervised: the trainer's own loss; None if it was checked before.

    Raises:
        ValueError: when a value is not finite.
    """
    values = {f"term `{name}`": state.output[f"loss_{name}"] for name in names}
    if supervised is not None:
        values = {"the supervised loss": plain(supervised).detach(), **values}
    if not values:
        return
    numbers = torch.stack([value.float() for value in values.values()])
    if torch.isfinite(numbers).all():
        return
    bad = [f"{name} = {number}" for name, number in zip(values, numbers.tolist()) if not math.isfinite(number)]
    logits = {"the student": student.logits, "the teacher": teacher.logits}
    who = [who for who, tensor in logits.items() if not torch.isfinite(tensor).all()]
    raise ValueError(
        f"{' and '.join(bad)} must be finite (epoch {state.epoch}, iteration {state.iteration}); not finite before it: "
        f"{' and '.join(who) or 'none of the logits'}. No weight was changed in this iteration."
    )
