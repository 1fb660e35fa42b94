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

"""From cases to the slices of a MONAI data list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from monai.config import PathLike

from monai_kd.data.case_name import case_name
from monai_kd.data.scan_cases import scan_cases
from monai_kd.transforms.task_label import task_labels

KEEP = ("all", "foreground")


def slice_list(
    cases: Sequence[Mapping[str, Any]],
    keep: str = "all",
    foreground: str | Mapping[int, int] | Sequence[int] | None = None,
    background_step: int = 0,
    geometry_key: str | None = None,
    check_images: bool = True,
    cache_dir: PathLike | None = None,
    progress: bool = True,
) -> list[dict[str, Any]]:
    """
    Lists the axial slices of CT cases as items for :py:class:`monai_kd.transforms.LoadSliced`, in the order of the
    cases and from the feet to the head; nothing is written but the scan's result.

    EMKD's released code trains and evaluates on the slices with foreground only (``keep="foreground"``): fewer false
    positives are seen that way in evaluation, so here volumes are evaluated whole and only training may leave out
    slices.

    Args:
        cases: items with "image", "label" and "case", see :py:func:`monai_kd.data.folder_cases` and others.
        keep: "all" slices, or those with "foreground".
        foreground: which labels of the file are foreground: a task as for :py:class:`monai_kd.transforms.TaskLabeld`
            ("organ", "tumor", "multi" or a table; what it maps to 0 is none) or a list of labels. Default: all but 0.
        background_step: with ``keep="foreground"``, also every n-th slice without foreground; 0 for none.
        geometry_key: see :py:func:`monai_kd.data.scan_cases`; give :py:class:`monai_kd.transforms.LoadSliced` the same.
        check_images: see :py:func:`monai_kd.data.scan_cases`.
        cache_dir: see :py:func:`monai_kd.data.scan_cases`.
        progress: whether to show a progress bar.

    Returns:
        for each slice its case's items and ``"slice"`` (number from the feet) and ``"stamp"`` (changes with the files,
        so that no cache gives old content).

    Raises:
        ValueError: when an argument is out of range, a case has no label to choose by, or no slice is left; and as
            :py:func:`monai_kd.data.scan_cases`.

    Example::

        >>> slice_list([], keep="tumor")
        Traceback (most recent call last):
        ...
        ValueError: `keep` must be one of all, foreground, but got 'tumor'.
    """
    if keep not in KEEP:
        raise ValueError(f"`keep` must be one of {', '.join(KEEP)}, but got {keep!r}.")
    if background_step < 0:
        raise ValueError(f"`background_step` must not be negative, but got {background_step}.")
    unlabeled = [case_name(case) for case in cases if "label" not in case]
    if keep == "foreground" and unlabeled:
        raise ValueError(f"`keep` must be \"all\" for cases without label, but got 'foreground' and {unlabeled[:5]}.")
    wanted = _wanted(foreground)
    scans = scan_cases(cases, geometry_key, check_images, cache_dir, progress=progress)
    _check_labels(cases, scans, foreground)
    items = []
    for case, scan in zip(cases, scans):
        chosen = _chosen(scan, wanted, background_step) if keep == "foreground" else range(scan["num_slices"])
        items += [{"case": case_name(case), **case, "slice": index, "stamp": scan["stamp"]} for index in chosen]
    if not items:
        raise ValueError(f"`cases` must hold slices to keep, but got none of {len(cases)} cases with keep={keep!r}.")
    return items


def _check_labels(
    cases: Sequence[Mapping[str, Any]],
    scans: Sequence[Mapping[str, Any]],
    foreground: str | Mapping[int, int] | Sequence[int] | None,
) -> None:
    """A label that the task does not know would be trained as background."""
    if not isinstance(foreground, (str, Mapping)):
        return
    table = task_labels(foreground)
    unknown = {case_name(case): sorted(set(scan["labels"]) - set(table)) for case, scan in zip(cases, scans)}
    unknown = {name: labels for name, labels in unknown.items() if labels}
    if unknown:
        raise ValueError(
            f"`foreground` must know all labels of the cases, but got {dict(list(unknown.items())[:5])} beside "
            f"{sorted(table)}; map what is to be ignored to 0."
        )


def _wanted(foreground: str | Mapping[int, int] | Sequence[int] | None) -> set[int] | None:
    if foreground is None:
        return None
    if isinstance(foreground, (str, Mapping)):
        return {source for source, target in task_labels(foreground).items() if target != 0}
    return {int(label) for label in foreground}


def _chosen(scan: Mapping[str, Any], wanted: set[int] | None, background_step: int) -> list[int]:
    inside = {at for label, slices in scan["labels"].items() if wanted is None or label in wanted for at in slices}
    outside = [index for index in range(scan["num_slices"]) if index not in inside]
    return sorted(inside | set(outside[::background_step] if background_step else ()))
