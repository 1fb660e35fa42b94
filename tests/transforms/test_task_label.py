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

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data.meta_tensor import MetaTensor

from monai_kd.transforms import TaskLabeld, task_labels

LABEL = np.array([[[0, 1, 2], [2, 1, 0]]])


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        ("organ", (LABEL > 0).astype(int)),
        ("tumor", (LABEL == 2).astype(int)),
        ("multi", LABEL),
        ({0: 0, 1: 2, 2: 1}, (3 - LABEL) % 3),
    ],
)
@pytest.mark.parametrize("make", [np.asarray, torch.from_numpy, lambda a: MetaTensor(torch.from_numpy(a).float())])
def test_values_of_numpy(task, expected, make):
    result = TaskLabeld("label", task)({"label": make(LABEL)})["label"]
    np.testing.assert_array_equal(np.asarray(result), expected)
    assert str(result.dtype).endswith("uint8")


def test_labels_to_ignore_become_background():
    table = {0: 0, 1: 1, 5: 0}
    result = TaskLabeld("label", table, dtype=np.float32)({"label": np.array([[0, 1, 5]], dtype=np.float32)})["label"]
    assert result.tolist() == [[0.0, 1.0, 0.0]]


def test_tables_from_a_bundle_config():
    config = {"_target_": "monai_kd.transforms.TaskLabeld", "keys": "label", "task": {"0": 0, "2": 1, 1: 0}}
    transform = ConfigParser({"t": config}).get_parsed_content("t")
    np.testing.assert_array_equal(transform({"label": LABEL})["label"], LABEL == 2)


def test_guards():
    with pytest.raises(ValueError, match="`task` must be one of organ, tumor, multi, but got 'liver'"):
        task_labels("liver")
    label = MetaTensor(torch.tensor([[0.0, 3.0, 255.0]]), meta={"filename_or_obj": "a.nii"})
    with pytest.raises(ValueError, match=r"`a.nii` must hold the labels \[0, 1, 2\], but got \[3.0, 255.0\] too; name"):
        TaskLabeld("label", "tumor")({"label": label})
