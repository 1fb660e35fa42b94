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

"""Plans for a narrower network."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from monai_kd.nnunet.plans import shrink_plans

PLANS: dict[str, Any] = {
    "plans_name": "nnUNetPlans",
    "configurations": {
        "2d": {
            "data_identifier": "nnUNetPlans_2d",
            "architecture": {
                "arch_kwargs": {
                    "n_stages": 3,
                    "features_per_stage": [32, 64, 512],
                    "n_conv_per_stage": [2, 2, 2],
                    "n_conv_per_stage_decoder": [2, 2],
                }
            },
        },
        "3d_fullres": {
            "architecture": {
                "arch_kwargs": {"n_stages": 2, "features_per_stage": [32, 320], "n_blocks_per_stage": [1, 6]}
            }
        },
        "3d_cascade_fullres": {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"},
    },
}


def arguments(plans: dict[str, Any], configuration: str) -> dict[str, Any]:
    return plans["configurations"][configuration]["architecture"]["arch_kwargs"]


def test_widths_of_all_configurations_are_divided_and_nothing_else():
    before = deepcopy(PLANS)
    small = shrink_plans(PLANS, 0.25, "new", {"teacher": "there"})
    assert before == PLANS
    assert arguments(small, "2d").pop("features_per_stage") == [8, 16, 128]
    assert arguments(small, "3d_fullres").pop("features_per_stage") == [8, 80]
    for configuration in ("2d", "3d_fullres"):
        arguments(before, configuration).pop("features_per_stage")
    assert small == before | {"plans_name": "new", "monai_kd": {"teacher": "there"}}


def test_never_below_8_channels():
    assert arguments(shrink_plans(PLANS, 0.05, "new", {}), "2d")["features_per_stage"] == [8, 8, 26]


def test_blocks():
    small = shrink_plans(PLANS, 0.5, "new", {}, blocks=0.5)
    assert arguments(small, "2d")["n_conv_per_stage"] == [1, 1, 1]
    assert arguments(small, "2d")["n_conv_per_stage_decoder"] == [1, 1]
    assert arguments(small, "3d_fullres")["n_blocks_per_stage"] == [1, 3]


@pytest.mark.parametrize("factor", [0, 1, -1, True, "1/4"])
def test_factor_out_of_range(factor):
    with pytest.raises(ValueError, match="`student` must be above 0 and below 1, but got"):
        shrink_plans(PLANS, factor, "new", {})


def test_plans_of_an_old_nnunet():
    with pytest.raises(ValueError, match="by features_per_stage, as nnU-Net since 2.5 does, but got none"):
        shrink_plans({"configurations": {"2d": {"UNet_base_num_features": 32}}}, 0.5, "new", {})
