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

"""A linear change, by its values."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monai_kd.handlers import LinearSchedule


@pytest.mark.parametrize(
    ("time", "value"), [(0.0, 4.0), (1.0, 4.0), (1.5, 3.25), (2.0, 2.5), (3.0, 1.0), (100.0, 1.0), (-1.0, 4.0)]
)
def test_values(time, value):
    assert LinearSchedule(4.0, 1.0, epochs=2, begin=1)(time) == value


@given(start=st.floats(-10, 10), stop=st.floats(-10, 10), times=st.tuples(st.floats(0, 20), st.floats(0, 20)))
def test_is_monotonous_and_between_its_ends(start, stop, times):
    early, late = (LinearSchedule(start, stop, epochs=7, begin=2)(time) for time in sorted(times))
    assert min(start, stop) - 1e-9 <= early <= max(start, stop) + 1e-9
    assert (late - early) * (stop - start) >= -1e-9


@pytest.mark.parametrize("epochs", [0, -1, None, "3"])
def test_epochs(epochs):
    with pytest.raises(ValueError, match=f"`epochs` must be a finite number > 0, but got {epochs!r}"):
        LinearSchedule(0, 1, epochs)


def test_begin():
    with pytest.raises(ValueError, match="`begin` must be a finite number >= 0, but got -1"):
        LinearSchedule(0, 1, 1, begin=-1)


@pytest.mark.parametrize("end", ["start", "stop"])
@pytest.mark.parametrize("value", ["1e-3", None, float("inf")])
def test_ends(end, value):
    with pytest.raises(ValueError, match=f"`{end}` must be a finite number, but got {value!r}"):
        LinearSchedule(**({"start": 0.0, "stop": 1.0, "epochs": 2} | {end: value}))
