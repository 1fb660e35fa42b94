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

import json

import pytest

from monai_kd.bundle.demo_page import Gain, last_fifth, write_json
from monai_kd.report import PairedTest


def gain(teacher=0.8, alone=0.6, distilled=0.7, p=0.001, unconverged=0.0):
    dice = {"teacher": teacher, "alone": alone, "distilled": distilled}
    return Gain(dice, PairedTest(40, distilled - alone, 0.0, 0.0, p), 61.4, unconverged)


def test_gain_is_the_first_thing_said():
    assert gain().sentence == (
        "Distillation gained 0.100 Dice: distilled 0.700, alone 0.600, teacher 0.800 with 61 times more weights; "
        "40 test cases, p = 0.001."
    )


@pytest.mark.parametrize(
    ("found", "verdict", "reason"),
    [
        (gain(distilled=0.5), "Distillation cost 0.100 Dice: ", "the unlabelled cases are too few"),
        (gain(distilled=0.61, p=0.2), "Distillation gained nothing that is certain (+0.010 Dice): ", "too few test"),
        (gain(distilled=0.6, p=1.0), "Distillation gained nothing that is certain (+0.000 Dice): ", "the unlabelled"),
        (gain(teacher=0.61, distilled=0.5), "Distillation cost 0.100 Dice: ", "the teacher is hardly better"),
        (gain(distilled=0.5, unconverged=0.02), "Distillation cost", "the last fifth of the epochs still gained 0.020"),
    ],
)
def test_no_gain_is_said_with_reason_and_remedy(found, verdict, reason):
    assert found.sentence.startswith(verdict)
    assert f"Likely reason: {reason}" in found.sentence
    assert "(`--" in found.sentence.partition("Likely reason")[2]


@pytest.mark.parametrize(
    ("curve", "gained"), [([0.5], 0.0), ([0.1, 0.5, 0.4, 0.6], 0.1), ([0.6, 0.5], -0.0), ([0.1] * 8 + [0.2, 0.3], 0.2)]
)
def test_last_fifth_against_the_best_before(curve, gained):
    assert last_fifth(curve) == pytest.approx(gained)


def test_json_holds_numbers(tmp_path):
    write_json(tmp_path / "demo.json", gain(), seconds=12.34)
    assert json.loads((tmp_path / "demo.json").read_text("utf-8")) == {
        "teacher": 0.8,
        "alone": 0.6,
        "distilled": 0.7,
        "seconds": 12.3,
    }
