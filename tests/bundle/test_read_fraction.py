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

"""Numbers as a person writes them."""

from __future__ import annotations

import pytest

from monai_kd.bundle.read_fraction import read_fraction


@pytest.mark.parametrize(("value", "number"), [("1/4", 0.25), (" 0.1 ", 0.1), (0.5, 0.5), ("2", 2.0)])
def test_numbers_and_fractions(value, number):
    assert read_fraction("student", value) == number


@pytest.mark.parametrize("value", ["a quarter", "1/0", "", "1/2/3"])
def test_anything_else_is_named(value):
    with pytest.raises(ValueError, match="`student` must be a number as 0.25 or 1/4, but got"):
        read_fraction("student", value)
