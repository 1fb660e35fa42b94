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

"""What two sets of settings do not have in common."""

from __future__ import annotations

from monai_kd.data.differences import differences


def test_nothing():
    assert differences({"a": 1}, {"a": 1}) == differences({}, {}) == ""


def test_both_sides():
    assert differences({"a": 1, "b": 2}, {"a": "1", "c": 3}) == "a 1 and not '1', b 2 and not None, c None and not 3"


def test_many_are_counted():
    said = differences({}, {f"key{number}": number for number in range(1, 11)})
    assert said.endswith("key8 None and not 8 and 2 more")


def test_a_section_in_place_of_a_value_is_told_once():
    section = {"rate::_target_": "chosen", "rate::name": "weights", "seed": 0}
    assert differences(section, {"rate": 0.3, "seed": 0}) == "rate 'chosen' and not 0.3"
    assert differences({"rate": 0.3, "seed": 0}, section) == "rate 0.3 and not 'chosen'"
