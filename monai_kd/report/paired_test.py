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

"""Whether two runs differ on the same cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import wilcoxon


@dataclass(frozen=True)
class PairedTest:
    """
    How the second of two runs differs from the first, see :py:func:`paired_test`.

    Args:
        n: number of cases.
        difference: mean of second - first.
        low: lower end of its confidence interval.
        high: upper end.
        p_value: two-sided p of the signed-rank test.
    """

    n: int
    difference: float
    low: float
    high: float
    p_value: float


def paired_test(
    first: Sequence[float], second: Sequence[float], confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> PairedTest:
    r"""
    Compare two runs case by case: Wilcoxon's signed-rank test [1]_ for the question whether they differ, and a
    percentile bootstrap [2]_ of the mean difference

    .. math::

        \bar d = \tfrac{1}{n} \sum_i (\mathrm{second}_i - \mathrm{first}_i)

    for how much. Cases with equal values count in the mean and the interval, not in the ranks. Fewer than 6 cases
    cannot give p < 0.05, however large the difference.

    Args:
        first: values of the baseline, one for each case.
        second: values of the other run, in the same order.
        confidence: of the interval, in (0, 1).
        resamples: bootstrap samples.
        seed: of the bootstrap; equal seeds give equal intervals.

    Raises:
        ValueError: when the two differ in length, are empty or not finite, or `confidence` is outside (0, 1).

    References:
        .. [1] Wilcoxon, Individual comparisons by ranking methods, Biometrics Bulletin 1 (1945).
        .. [2] Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.

    Example::

        >>> from monai_kd.report import paired_test
        >>> paired_test([0.5, 0.6, 0.7, 0.8, 0.9], [0.6, 0.72, 0.83, 0.95, 0.99]).p_value  # 2 of 2**5 signs
        0.0625
    """
    one, two = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if one.shape != two.shape or one.ndim != 1 or not one.size:
        raise ValueError(f"`second` must have a value for each case of `first`, but got {two.shape} and {one.shape}.")
    if not np.isfinite([one, two]).all():
        raise ValueError(
            "`first` and `second` must be finite, but got NaN or inf; leave out cases with an empty label."
        )
    if not 0 < confidence < 1:
        raise ValueError(f"`confidence` must be in (0, 1), but got {confidence}.")
    difference = two - one
    drawn = np.random.default_rng(seed).choice(difference, (resamples, difference.size)).mean(1)
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    p_value = float(wilcoxon(difference).pvalue) if difference.any() else 1.0
    return PairedTest(difference.size, float(difference.mean()), float(low), float(high), p_value)
