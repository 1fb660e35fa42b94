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

"""The name of a case, of files and of what was loaded."""

from __future__ import annotations

import pytest
import torch
from monai.data import Dataset, MetaTensor

from monai_kd.data.case_name import case_name, case_names


def loaded(path: str) -> MetaTensor:
    return MetaTensor(torch.zeros(1, 2, 2), meta={"filename_or_obj": path})


@pytest.mark.parametrize(
    ("item", "name"),
    [
        ({"case": 3, "image": "a.nii.gz"}, "3"),
        ({"image": "scans/a.nii.gz"}, "scans/a.nii.gz"),
        ({"image": loaded("scans/a.nii.gz")}, "a"),
        ({"image": loaded("scans/a.b.nii")}, "a.b"),
        ({"image": loaded("scans/series/")}, "series"),
        ({"image": torch.zeros(1, 2, 2)}, "unknown"),
    ],
)
def test_name(item, name):
    assert case_name(item) == name


def test_names_of_a_dataset():
    assert case_names(Dataset([{"case": "b"}, {"case": 1}, {"case": "b"}, {"image": "c"}])) == {"b", "1"}
    assert case_names([1, 2]) == set()
