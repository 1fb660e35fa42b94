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

"""Cross-validation and hold-out by case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from monai.data import partition_dataset, select_cross_validation_folds

Cases = list[dict[str, Any]]


def k_fold(
    cases: Sequence[Mapping[str, Any]],
    fold: int,
    num_folds: int = 5,
    seed: int = 0,
    validation_fraction: float = 0.1,
    group_key: str = "case",
) -> dict[str, Cases]:
    """
    Splits cases into "train", "validation" and "test" for one fold of a cross-validation: never slices, so that no
    patient is on two sides. The fold is the test set; the validation set, by which a model is selected, is taken out of
    the other folds.

    EMKD (Sec. IV-C) reports 5 folds and picks scores from the last 20 epochs of each, which selects on the test fold;
    here the test fold is used once.

    Args:
        cases: items with `group_key`; their order does not matter.
        fold: number of the test fold, 0 to `num_folds` - 1.
        num_folds: number of folds, at least 2.
        seed: seed of the shuffle, the same for all folds.
        validation_fraction: part of the remaining cases held out for validation, in [0, 1); at least one case if > 0.
        group_key: what must stay together: "case", or a patient's key where a patient has several cases.

    Returns:
        {"train": [...], "validation": [...], "test": [...]}, each sorted by group.

    Raises:
        ValueError: when an argument is out of range, groups are named by values of several types, or there are fewer
            groups than folds.

    Example::

        >>> folds = [k_fold([{"case": str(i)} for i in range(10)], fold) for fold in range(5)]
        >>> sorted(case["case"] for split in folds for case in split["test"]) == [str(i) for i in range(10)]
        True
    """
    if num_folds < 2 or not 0 <= fold < num_folds:
        raise ValueError(f"`fold` must be in 0 to `num_folds` - 1 (at least 2 folds), but got {fold} and {num_folds}.")
    groups = _groups(cases, group_key)
    if len(groups) < num_folds:
        raise ValueError(f"`cases` must hold at least {num_folds} different `{group_key}`, but got {len(groups)}.")
    parts = partition_dataset(groups, num_partitions=num_folds, shuffle=True, seed=seed)
    rest = select_cross_validation_folds(parts, [part for part in range(num_folds) if part != fold])
    kept = hold_out([case for case in cases if case[group_key] in set(rest)], validation_fraction, seed, group_key)
    return {**kept, "test": _of(cases, parts[fold], group_key)}


def hold_out(
    cases: Sequence[Mapping[str, Any]], fraction: float = 0.1, seed: int = 0, group_key: str = "case"
) -> dict[str, Cases]:
    """
    Splits cases into "train" and "validation", by case.

    Args:
        cases: items with `group_key`; their order does not matter.
        fraction: part of the cases held out, in [0, 1); at least one case if > 0.
        seed: seed of the shuffle.
        group_key: what must stay together.

    Returns:
        {"train": [...], "validation": [...]}, each sorted by group.

    Raises:
        ValueError: when the fraction is out of range or leaves no case to train on, or groups are named by values of
            several types.

    Example::

        >>> split = hold_out([{"case": str(i)} for i in range(10)], fraction=0.2)
        >>> len(split["train"]), len(split["validation"])
        (8, 2)
    """
    if not 0 <= fraction < 1:
        raise ValueError(f"`fraction` must be in [0, 1), but got {fraction}.")
    groups = _groups(cases, group_key)
    number = max(1, round(fraction * len(groups))) if fraction > 0 else 0
    if number >= len(groups):
        raise ValueError(f"`cases` must leave a `{group_key}` to train on, but got {number} of {len(groups)} held out.")
    shuffled = partition_dataset(groups, num_partitions=1, shuffle=True, seed=seed)[0]
    return {"train": _of(cases, shuffled[number:], group_key), "validation": _of(cases, shuffled[:number], group_key)}


def _groups(cases: Sequence[Mapping[str, Any]], group_key: str) -> list[Any]:
    lacking = [dict(case) for case in cases if group_key not in case]
    if lacking:
        raise ValueError(f"`cases` must all have `{group_key}`, but got {lacking[0]}.")
    groups = {case[group_key] for case in cases}
    try:
        return sorted(groups)
    except TypeError as error:
        kinds = sorted({type(group).__name__ for group in groups})
        raise ValueError(
            f"`{group_key}` of all cases must be of one type, but got {' and '.join(kinds)}; 1 and '1' could be one "
            "patient on two sides."
        ) from error


def _of(cases: Sequence[Mapping[str, Any]], groups: Sequence[Any], group_key: str) -> Cases:
    wanted = set(groups)
    return sorted((dict(case) for case in cases if case[group_key] in wanted), key=lambda case: case[group_key])
