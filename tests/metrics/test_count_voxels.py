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
from monai.data.meta_tensor import MetaTensor

from monai_kd.metrics import count_voxels


@pytest.mark.parametrize("shape", [(2, 3, 7, 5), (2, 3, 4, 5, 6)])
@pytest.mark.parametrize("convert", [torch.Tensor.float, torch.Tensor.byte, torch.Tensor.half, MetaTensor])
def test_counts_of_numpy(shape, convert):
    prediction, label = torch.randint(0, 2, shape), torch.randint(0, 2, shape)
    found = count_voxels(convert(prediction), convert(label))
    p, g = (np.asarray(x).reshape(2, 3, -1) for x in (prediction, label))
    for counts, expected in zip(found, (p.sum(-1), g.sum(-1), (p & g).sum(-1))):
        assert type(counts) is torch.Tensor
        np.testing.assert_array_equal(counts, expected)


def test_background_is_left_out_only_beside_other_channels():
    prediction = torch.randint(0, 2, (2, 3, 4, 4))
    whole, part = count_voxels(prediction, prediction), count_voxels(prediction, prediction, include_background=False)
    assert torch.equal(whole[0][:, 1:], part[0])
    assert count_voxels(prediction[:, :1], prediction[:, :1], include_background=False)[0].shape == (2, 1)


def test_more_voxels_than_single_precision_counts():
    mask = torch.ones(1, 1, 2**24 + 2, dtype=torch.bool)
    assert count_voxels(mask, mask)[2].item() == 2**24 + 2


def test_guards():
    mask = torch.zeros(1, 2, 3, 3)
    with pytest.raises(ValueError, match=r"one shape .*, but got \(1, 2, 3, 3\) and \(1, 1, 3, 3\); make both"):
        count_voxels(mask, mask[:, :1])
    with pytest.raises(ValueError, match=r"must have one shape .*, but got \(3, 3\)"):
        count_voxels(mask[0, 0], mask[0, 0])
    with pytest.raises(ValueError, match="`y_pred` must hold only 0 and 1, but got values from 0.5 to 0.5; binarise"):
        count_voxels(mask + 0.5, mask)
    with pytest.raises(ValueError, match="`y` must hold only 0 and 1, but got values from 0 to 2"):
        count_voxels(mask, torch.tensor([0.0, 1.0, 2.0]).expand(1, 2, 3, 3))
