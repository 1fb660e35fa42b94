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
from hypothesis import given
from hypothesis import strategies as st
from monai.bundle import ConfigParser
from monai.data import partition_dataset

from monai_kd.data import hold_out, k_fold


def cases(number):
    return [{"case": f"case_{i:03d}", "image": f"{i}.nii"} for i in range(number)]


def names(items):
    return [item["case"] for item in items]


@given(st.integers(5, 60), st.integers(2, 5), st.integers(0, 99), st.sampled_from([0.0, 0.1, 0.3]))
def test_every_case_is_tested_once_and_never_trained_on(number, num_folds, seed, fraction):
    splits = [k_fold(cases(number), fold, num_folds, seed, fraction) for fold in range(num_folds)]
    assert sorted(name for split in splits for name in names(split["test"])) == names(cases(number))
    sizes = [len(split["test"]) for split in splits]
    assert max(sizes) - min(sizes) <= 1
    for split in splits:
        parts = [set(names(split[part])) for part in ("train", "validation", "test")]
        assert sum(len(part) for part in parts) == len(set().union(*parts)) == number
        assert (len(parts[1]) > 0) == (fraction > 0)


def test_folds_are_those_of_monai():
    expected = partition_dataset(names(cases(23)), num_partitions=5, shuffle=True, seed=7)
    for fold in range(5):
        assert names(k_fold(cases(23), fold, seed=7)["test"]) == sorted(expected[fold])


def test_order_of_the_cases_makes_no_difference_and_the_seed_does():
    shuffled = list(np.random.RandomState(0).permutation(cases(20)))
    assert k_fold(shuffled, 1) == k_fold(cases(20), 1)
    assert k_fold(cases(20), 1, seed=1) != k_fold(cases(20), 1)
    assert hold_out(shuffled) == hold_out(cases(20))


def test_slices_and_cases_of_a_patient_stay_on_one_side():
    slices = [{**case, "patient": case["case"][:-1], "slice": k} for case in cases(60) for k in range(3)]
    split = k_fold(slices, 0, num_folds=3, group_key="patient", validation_fraction=0.25)
    groups = [{item["patient"] for item in items} for items in split.values()]
    assert sum(len(group) for group in groups) == 6
    assert groups[0].isdisjoint(groups[1] | groups[2])
    assert groups[1].isdisjoint(groups[2])
    assert sum(len(items) for items in split.values()) == 180


@pytest.mark.parametrize(("fraction", "expected"), [(0.0, 0), (0.01, 1), (0.2, 2), (0.24, 2), (0.26, 3), (0.9, 9)])
def test_hold_out_takes_its_share(fraction, expected):
    split = hold_out(cases(10), fraction)
    assert (len(split["train"]), len(split["validation"])) == (10 - expected, expected)


def test_items_are_copies():
    items = cases(6)
    k_fold(items, 0)["train"][0]["image"] = "changed"
    assert items == cases(6)


def test_bundle_config():
    config = {"folds": {"_target_": "monai_kd.data.k_fold", "cases": cases(10), "fold": 2}, "train": "$@folds['train']"}
    assert ConfigParser(config).get_parsed_content("train") == k_fold(cases(10), 2)["train"]


@pytest.mark.parametrize("split", [lambda items: k_fold(items, 0, num_folds=2), hold_out])
def test_cases_named_by_numbers_and_texts_are_refused(split):
    with pytest.raises(ValueError, match="`case` of all cases must be of one type, but got int and str; 1 and '1'"):
        split([{"case": name} for name in (1, 2, "1", "3")])


def test_guards():
    with pytest.raises(ValueError, match="`fold` must be in 0 to `num_folds` - 1 .*but got 5 and 5"):
        k_fold(cases(10), 5)
    with pytest.raises(ValueError, match="`cases` must hold at least 5 different `case`, but got 4"):
        k_fold(cases(4) * 3, 0)
    with pytest.raises(ValueError, match=r"`fraction` must be in \[0, 1\), but got 1.0"):
        hold_out(cases(4), 1.0)
    with pytest.raises(ValueError, match="`cases` must leave a `case` to train on, but got 1 of 1 held out"):
        hold_out(cases(1), 0.5)
    with pytest.raises(ValueError, match="`cases` must all have `patient`, but got"):
        k_fold(cases(10), 0, group_key="patient")
