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

"""What the losses with a temperature share."""

from __future__ import annotations

from torch import nn

from ._inputs import check_temperature


class TemperedLoss(nn.Module):
    """
    A loss with a temperature, which a schedule may set while training.

    Args:
        temperature: above 0.

    Raises:
        ValueError: when it is not a finite number above 0, also when it is set later.

    """

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    @property
    def temperature(self) -> float:
        """What logits or maps are divided by."""
        return self._temperature

    @temperature.setter
    def temperature(self, value: float) -> None:
        self._temperature = check_temperature(value)
