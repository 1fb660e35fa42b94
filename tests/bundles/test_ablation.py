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

"""Each row of the README's table of objectives is a few overrides, and does what it says."""

from __future__ import annotations

import re
import shlex
from typing import Any

import pytest
import torch
from fire.parser import DefaultParseValue
from monai.bundle import ConfigParser

from monai_kd.bundle.check_overrides import check_overrides
from tests.bundles.journey import BUNDLES, DATA, LIVER, SMALL, ablations, run_configs

ROWS = {name: ablations((folder / "docs" / "README.md").read_text("utf-8")) for name, folder in BUNDLES.items()}
CASES = [(name, row) for name, rows in ROWS.items() for row in rows]
TABLE_6 = {4: (0.2, 0.9, 0.9), 5: (0.1, 1.8, 0.9), 6: (0.1, 0.9, 1.8), 7: (0.1, 1.8, 1.8)}


def overrides(text: str) -> dict[str, Any]:
    """``--a 1 --b x`` as the command line reads it."""
    words = shlex.split(text)
    return {key.removeprefix("--"): DefaultParseValue(value) for key, value in zip(words[::2], words[1::2])}


def weights_of(row: str) -> dict[str, float] | None:
    """The weights that a row's name promises."""
    if row.startswith("Table VI"):
        return dict(zip(("pmd", "imd", "rad"), TABLE_6[int(row[-1])]))
    if not re.match(r"[PIR][MA]D\b(?! at| averaged| as)", row):
        return None
    return {"pmd": 0.1 * ("PMD" in row), "imd": 0.9 * ("IMD" in row), "rad": 0.9 * ("RAD" in row)}


@pytest.mark.parametrize(("name", "row"), CASES)
def test_row_is_what_its_name_says(name, row):
    values = overrides(ROWS[name][row])
    config = str(BUNDLES[name] / "configs" / "train.yaml")
    check_overrides(config, values)
    parser = ConfigParser()
    parser.read_config(config)
    parser.update(values)
    terms = parser.get_parsed_content("distillation::0::terms")
    assert parser.get_parsed_content("best_ckpt").endswith(f"models/{values['ckpt_name']}.pt")
    promised = weights_of(row)
    if promised is not None:
        assert {term.name: term.weight for term in terms} == pytest.approx(promised)
    else:
        assert set(values) - {"ckpt_name"}, row
    assert parser.get_parsed_content("distil") is ("alone" not in row)


@pytest.fixture(scope="module")
def gradients(walked, tmp_path_factory) -> dict[str, torch.Tensor]:
    """The student's first gradient with each objective of LiTS's table, and with all weights 0."""
    folder, root = walked(LIVER), tmp_path_factory.mktemp("ablation")
    common = SMALL[LIVER] | {"train::trainer::epoch_length": 1, "bundle_root": str(root)}
    common |= {"dataset_dir": str(folder / "data" / DATA[LIVER]), "tensorboard": False}
    common |= {"teacher_ckpt": str(folder / LIVER / "models" / "teacher.pt")}
    found = {}
    for row, text in (
        ROWS[LIVER] | {"nothing": "--pmd_weight 0 --imd_weight 0 --rad_weight 0 --ckpt_name nothing"}
    ).items():
        values = overrides(text)
        run_configs(folder / LIVER, ["train.yaml"], **common, **values)
        state = torch.load(
            root / "models" / "resume" / f"{values['ckpt_name']}_checkpoint_epoch=1.pt", weights_only=True
        )
        moments = state["optimizer"]["state"].values()  # Adam's first moment after one step is 0.1 x the gradient
        found[row] = torch.cat([moment["exp_avg"].flatten() for moment in moments])
    return found


@pytest.mark.slow
def test_every_objective_trains_and_no_two_are_the_same(gradients):
    seen = [gradient for row, gradient in gradients.items() if row != "nothing"]
    assert all(torch.isfinite(gradient).all() for gradient in seen)
    assert not any(torch.equal(one, other) for at, one in enumerate(seen) for other in seen[:at])


@pytest.mark.slow
def test_weights_of_0_train_the_student_alone(gradients):
    """The first two rows of Table VI, bit for bit."""
    torch.testing.assert_close(gradients["nothing"], gradients["student alone"], rtol=0, atol=0)
