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

"""A value that changes linearly with the epochs."""

from __future__ import annotations

from monai_kd.handlers._numbers import as_number


class LinearSchedule:
    """
    A weight or temperature that moves from ``start`` to ``stop`` and stays there.

    It depends on the epochs done alone and keeps no count of its own, so that a resumed run continues exactly. Any
    callable of the epochs done, a float, does in its place.

    Args:
        start: value before epoch ``begin``.
        stop: value from epoch ``begin + epochs`` on.
        epochs: how many epochs the change takes, > 0.
        begin: epochs to wait before it starts, >= 0.

    Raises:
        ValueError: when an argument is no finite number, or ``epochs`` or ``begin`` are out of range.

    Example::

        >>> ramp = LinearSchedule(0.0, 1.0, epochs=4)
        >>> ramp(0.0), ramp(1.0), ramp(9.0)
        (0.0, 0.25, 1.0)
    """

    def __init__(self, start: float, stop: float, epochs: float, begin: float = 0.0) -> None:
        self.start, self.stop = as_number("`start`", start, ""), as_number("`stop`", stop, "")
        self.epochs, self.begin = as_number("`epochs`", epochs, "> 0"), as_number("`begin`", begin)

    def __call__(self, epochs_done: float) -> float:
        share = min(max((epochs_done - self.begin) / self.epochs, 0.0), 1.0)
        return self.start + share * (self.stop - self.start)
