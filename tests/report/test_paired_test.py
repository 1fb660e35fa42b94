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
from scipy import stats

from monai_kd.report import paired_test

# Dice of ten cases, made up; two are equal
FIRST = [0.81, 0.74, 0.92, 0.55, 0.63, 0.88, 0.79, 0.70, 0.95, 0.47]
SECOND = [0.84, 0.73, 0.94, 0.61, 0.63, 0.90, 0.86, 0.75, 0.95, 0.59]


def test_p_against_a_count_of_all_signs():
    """Of the 2^8 ways to sign the ranks of the 8 cases that differ, those at least as lopsided as the one seen."""
    difference = np.round(np.subtract(SECOND, FIRST), 12)
    ranks = stats.rankdata(np.abs(difference[difference != 0]))
    signs = (np.arange(2**8)[:, None] >> np.arange(8) & 1) * 2 - 1
    sums = np.abs(signs @ ranks)
    seen = abs((np.sign(difference[difference != 0]) * ranks).sum())
    exact = (sums >= seen).mean()
    assert paired_test(FIRST, SECOND).p_value == pytest.approx(exact, abs=0.01)


def test_p_against_scipy():
    test = paired_test(FIRST, SECOND)
    assert test.p_value == stats.wilcoxon(FIRST, SECOND).pvalue
    assert test.n == 10
    assert test.difference == pytest.approx(0.036)


def test_interval_against_scipy():
    test = paired_test(FIRST, SECOND)
    by_scipy = stats.bootstrap(
        (np.subtract(SECOND, FIRST),), np.mean, n_resamples=20_000, method="percentile", random_state=1
    ).confidence_interval
    assert (test.low, test.high) == pytest.approx(tuple(by_scipy), abs=2e-3)


def test_swapped_runs_give_the_mirror_image():
    forth, back = paired_test(FIRST, SECOND), paired_test(SECOND, FIRST)
    assert (forth.difference, forth.p_value) == pytest.approx((-back.difference, back.p_value))
    assert (forth.low, forth.high) == pytest.approx((-back.high, -back.low), abs=1e-3)


def test_equal_runs_do_not_differ():
    test = paired_test(FIRST, FIRST)
    assert (test.difference, test.low, test.high, test.p_value) == (0, 0, 0, 1)


def test_more_confidence_is_a_wider_interval():
    narrow, wide = (paired_test(FIRST, SECOND, confidence) for confidence in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high


@pytest.mark.parametrize(
    ("first", "second", "confidence", "message"),
    [
        ([0.1], [0.1, 0.2], 0.95, r"a value for each case of `first`, but got \(2,\) and \(1,\)"),
        ([], [], 0.95, "a value for each case of `first`"),
        ([0.1], [np.nan], 0.95, "must be finite"),
        ([0.1], [0.2], 95, r"`confidence` must be in \(0, 1\), but got 95"),
    ],
)
def test_wrong_input_is_refused(first, second, confidence, message):
    with pytest.raises(ValueError, match=message):
        paired_test(first, second, confidence)
