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

"""What the headers of a DICOM series say of slices that are not there."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

logger = logging.getLogger(__name__)


def lacking_slices(headers: Sequence[Any]) -> str:
    """
    Says why slices may be missing at an end of a series, where the places of the others show nothing: the headers count
    more slices than there are, or their numbers start above 1. Archives may hold a part on purpose, so that this is no
    proof.

    Args:
        headers: of the slices of one series.

    Returns:
        the reason; empty where nothing says so.

    Example::

        >>> import pydicom
        >>> slices = [pydicom.Dataset() for _ in range(3)]
        >>> for number, one in enumerate(slices):
        ...     one.InstanceNumber = number + 5
        >>> lacking_slices(slices)
        'instance numbers start at 5'
    """
    for name in ("NumberOfSeriesRelatedInstances", "ImagesInAcquisition"):
        counts = [_whole(header, name) for header in headers]
        known = [count for count in counts if count]
        if known and max(known) > len(headers):
            return f"`{name}` is {max(known)}"
    numbers = [_whole(header, "InstanceNumber") for header in headers]
    found = sorted(number for number in numbers if number is not None)
    one_by_one = len(found) > 2 and found == list(range(found[0], found[0] + len(headers)))
    return f"instance numbers start at {found[0]}" if one_by_one and found[0] > 1 else ""


def log_lacking(reasons: Mapping[str, str]) -> None:
    """
    One line in the log that names the series of which slices may be missing, or none.

    Args:
        reasons: what :py:func:`lacking_slices` says, by name.
    """
    found = [f"{name} ({reason})" for name, reason in reasons.items() if reason]
    if found:
        more = ", ..." if len(found) > 3 else ""
        logger.warning(
            f"slices may be missing at an end of {len(found)} DICOM series: {', '.join(found[:3])}{more}; "
            "compare them with the archive"
        )


def _whole(header: Any, name: str) -> int | None:
    try:
        return int(header.get(name))
    except (AttributeError, TypeError, ValueError):
        return None
