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

"""What counts as a number."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from monai_kd.handlers._numbers import as_number


@pytest.mark.parametrize("value", [2, 2.0, np.float32(2), np.int64(2), torch.tensor(2.0), torch.tensor([2])])
def test_numbers_of_all_kinds(value):
    for rule in ("", ">= 0", "> 0"):
        number = as_number("`weight`", value, rule)
        assert type(number) is float
        assert number == 2.0


def test_rules():
    assert as_number("`weight`", -1, "") == -1.0
    assert as_number("`weight`", 0) == 0.0
    with pytest.raises(ValueError, match=r"^`weight` must be a finite number >= 0, but got -1\.$"):
        as_number("`weight`", -1)
    with pytest.raises(ValueError, match="`epochs` must be a finite number > 0, but got 0"):
        as_number("`epochs`", 0, "> 0")


@pytest.mark.parametrize("value", [None, "0.5", [1.0], 1j, float("nan"), float("-inf"), torch.zeros(2)])
@pytest.mark.parametrize(("rule", "text"), [("", ""), (">= 0", " >= 0"), ("> 0", " > 0")])
def test_what_is_none(value, rule, text):
    with pytest.raises(ValueError, match=r"^`weight` must be a finite number" + text + ", but got ") as caught:
        as_number("`weight`", value, rule)
    assert f"got {value!r}" in str(caught.value)
    assert ("YAML 1.0e-3 for 1e-3" in str(caught.value)) is isinstance(value, str)
