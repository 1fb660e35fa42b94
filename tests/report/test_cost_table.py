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

from __future__ import annotations

import pytest

from monai_kd.report import NetworkCost, cost_table


def test_units():
    cost = NetworkCost(22_100_000, 22_000_000, 24_810_000_000, 100.04, 120.0, 88.4, (1, 1, 384, 384), "cpu")
    table = cost_table({"teacher": cost})
    assert table.formatted() == [["teacher", "22,100,000", "22,000,000", "24.810", "100.0", "120.0", "88.40"]]
    assert "1x1x384x384 on cpu" in table.note


def test_no_network_is_refused():
    with pytest.raises(ValueError, match="`costs` must hold at least one network"):
        cost_table({})
