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

"""A volume at another scale than the training is refused."""

from __future__ import annotations

import pytest
import torch
from monai.data import MetaTensor

from monai_kd.transforms import CheckSpacingd

TRAINED = [[4.0, 4.0, 2.0], [5.0, 5.0, 3.0]]


def volume(*spacing: float) -> dict[str, MetaTensor]:
    affine = torch.diag(torch.tensor([*spacing, 1.0]))
    affine[0] *= -1  # left and right turned
    return {"image": MetaTensor(torch.zeros(1, 4, 4, 4), affine=affine)}


@pytest.mark.parametrize("spacing", [(4.0, 5.0, 2.0), (7.4, 2.7, 2.0), (4.5, 4.5, 50.0)])
def test_near_the_training_or_in_the_axis_between_slices(spacing):
    item = volume(*spacing)
    assert CheckSpacingd("image", TRAINED)(item)["image"] is item["image"]


@pytest.mark.parametrize("spacing", [(0.98, 0.98, 2.0), (4.0, 7.6, 2.0), (2.6, 4.0, 2.0)])
def test_far_from_the_training(spacing):
    with pytest.raises(ValueError, match=r"pixels of 4 x 4 to 5 x 5 mm, .*factor of 1.5, but got .* mm; resample"):
        CheckSpacingd("image", TRAINED)(volume(*spacing))


def test_all_axes_of_a_network_of_volumes():
    with pytest.raises(ValueError, match="but got 4 x 4 x 5 mm"):
        CheckSpacingd("image", TRAINED, axes=3)(volume(4.0, 4.0, 5.0))


@pytest.mark.parametrize(("spacing", "factor"), [(None, 1.5), (TRAINED, None)])
def test_nothing_known_or_wanted(spacing, factor):
    CheckSpacingd("image", spacing, factor)(volume(0.1, 0.1, 0.1))


def test_factor_below_1():
    with pytest.raises(ValueError, match="`factor` must be >= 1 or None, but got 0.5"):
        CheckSpacingd("image", TRAINED, 0.5)
