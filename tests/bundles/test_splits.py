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

"""Which images are trained on, choose the epoch and are tested on: none is on two sides, whatever the stage."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from monai_kd.data import (
    endoscopy_cases,
    folder_cases,
    hold_out,
    idrid_cases,
    isic_cases,
    k_fold,
    kits19_cases,
    lits_cases,
)
from tests.bundles.as_trained import TRAININGS, AsTrained
from tests.bundles.journey import (
    BUNDLES,
    DISC,
    ENDOSCENE,
    HEADNECK,
    KIDNEY,
    LIVER,
    POLYP,
    SKIN,
    XPNET,
)

every_bundle = pytest.mark.parametrize("name", BUNDLES)
# images that `write_data` writes
IMAGES = {LIVER: 6, KIDNEY: 6, HEADNECK: 6, POLYP: 40, XPNET: 44, SKIN: 20, ENDOSCENE: 20, DISC: 20}


def files_of(cases: Sequence[dict[str, Any]]) -> set[str]:
    return {case["image"] for case in cases}


def evaluated_on(name: str, data: Path, **values: Any) -> set[str]:
    """The images of a bundle's evaluation."""
    evaluation = AsTrained(name, data, "evaluate.yaml", **values)
    return files_of(evaluation.get("validate::dataset::data"))


@every_bundle
def test_no_image_is_on_two_sides(trained, tiny_data, name):
    """The trainer's, those that choose the epoch, and the test's, of the live loaders; together they are all."""
    training = trained(name)
    own = files_of(training.loader().dataset.data)
    chosen = files_of(training.evaluator["val_data_loader"].dataset.data)
    tested = evaluated_on(name, tiny_data(name))
    assert own
    assert chosen
    assert tested
    assert own & chosen == own & tested == chosen & tested == set()
    assert len(own | chosen | tested) == IMAGES[name]
    for key in ("image", "case"):
        assert len({case[key] for case in training.get("validate::dataset::data")}) == len(chosen)


@pytest.mark.parametrize(("name", "overlay"), [each for each in TRAININGS if each[1]])
def test_every_stage_is_trained_and_chosen_on_the_same_images(trained, tiny_data, name, overlay):
    """No teacher has seen what its student is tested on."""
    own = AsTrained(name, tiny_data(name), overlay)
    for key in ("train::dataset::data", "validate::dataset::data"):
        assert files_of(own.get(key)) == files_of(trained(name).get(key)), key


def split_of(name: str, data: Path) -> dict[str, list[dict[str, Any]]]:
    """What the README says of the split, by the functions alone."""
    if name in (LIVER, KIDNEY):
        cases = lits_cases(data) if name == LIVER else kits19_cases(data)
        return k_fold(cases, fold=0, num_folds=5, seed=0, validation_fraction=0.1)
    if name == HEADNECK:
        split = hold_out(folder_cases(data, split="train"), fraction=0.15, seed=0)
        return split | {"test": folder_cases(data, split="validation")}
    if name == POLYP:
        split = hold_out(endoscopy_cases(data / "TrainDataset"), fraction=0.1, seed=0)
        return split | {"test": endoscopy_cases(data / "TestDataset")}
    if name == XPNET:
        cases = endoscopy_cases(data / "EndoCV2022", sequences="folder")
        held = hold_out(cases, fraction=0.05, seed=0, group_key="sequence")
        split = hold_out(held["train"], fraction=0.05, seed=0, group_key="sequence")
        return split | {"test": [*held["validation"], *endoscopy_cases(data / "Kvasir-SEG")]}
    if name == DISC:
        split = hold_out(idrid_cases(data, "training"), fraction=0.1, seed=0)
        return split | {"test": idrid_cases(data, "test")}
    parts = {"train": "training", "validation": "validation", "test": "test"}
    return {part: isic_cases(data, of) for part, of in parts.items()}


@pytest.mark.parametrize("name", [name for name in BUNDLES if name != ENDOSCENE])
def test_split_is_the_one_of_the_readme(trained, tiny_data, name):
    """EndoScene's published one is in test_walk_team.py."""
    expected = split_of(name, tiny_data(name))
    for part in ("train", "validation"):
        assert files_of(trained(name).get("split")[part]) == files_of(expected[part])
    assert evaluated_on(name, tiny_data(name)) == files_of(expected["test"])


@every_bundle
def test_another_seed_has_the_same_split(trained, tiny_data, name):
    """Else a teacher of one seed has been trained on what a student of another is tested on."""
    other = AsTrained(name, tiny_data(name), seed=7)
    for part in ("train", "validation"):
        assert files_of(other.get("split")[part]) == files_of(trained(name).get("split")[part])
    data = tiny_data(name)
    assert evaluated_on(name, data, seed=7) == evaluated_on(name, data)


@pytest.mark.parametrize("name", [LIVER, KIDNEY])
def test_each_case_is_tested_in_one_fold(tiny_data, name):
    tested: list[str] = []
    for fold in range(5):
        training = AsTrained(name, tiny_data(name), "evaluate.yaml", fold=fold)
        tested += files_of(training.get("validate::dataset::data"))
        # no fold overwrites another's weights
        folders = [training.get(key) for key in ("ckpt_dir", "output_dir")]
        assert [str(folder).endswith(f"fold{fold}") for folder in folders] == [fold > 0] * 2
    assert len(tested) == len(set(tested)) == IMAGES[name]


def test_frames_of_a_sequence_are_on_one_side(trained):
    split = trained(XPNET).get("held_out"), trained(XPNET).get("split")
    sides = [split[1]["train"], split[1]["validation"], split[0]["validation"]]
    sequences = [{case["sequence"] for case in side} for side in sides]
    assert sum(map(len, sequences)) == len(set.union(*sequences))
