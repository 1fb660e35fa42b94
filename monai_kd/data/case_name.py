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

"""The name of a case."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

CASE = "case"


def case_name(item: Mapping[str, Any]) -> str:
    """
    The case that an item belongs to: its entry ``case``, else its image. Of an image that was loaded it is the name of
    the file, or of the folder of a DICOM series.

    Example::

        >>> case_name({"image": "liver_01.nii.gz"}), case_name({"image": "liver_01.nii.gz", "case": "01"})
        ('liver_01.nii.gz', '01')
    """
    if CASE in item:
        return str(item[CASE])
    meta = getattr(item.get("image"), "meta", None)
    if meta is None and not hasattr(item.get("image"), "shape"):
        return str(item.get("image"))
    path = Path(str((meta or {}).get("filename_or_obj", "")))
    return path.name.split(".nii")[0] or path.parent.name or "unknown"


def case_names(dataset: Any) -> set[str]:
    """The names of the cases of a dataset whose items say them; empty for other datasets."""
    items = list(getattr(dataset, "data", None) or [])
    return {str(item[CASE]) for item in items if isinstance(item, dict) and CASE in item}
