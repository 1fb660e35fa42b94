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

"""Named choices of a bundle: what stands under them, and an error with the nearest."""

from __future__ import annotations

import pytest

from monai_kd.bundle import chosen


def test_value():
    assert chosen("weights", "auto", {"auto": {"kd": 1}, "paper": {"kd": 2}}) == {"kd": 1}


@pytest.mark.parametrize("choice", ["papers", 0.5, None])
def test_other(choice):
    with pytest.raises(ValueError, match=r"`weights` must be one of auto, paper, but got .*; did you mean"):
        chosen("weights", choice, {"auto": 1, "paper": 2})
