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

"""From the labels of a data set to the labels of a task."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

import numpy as np
from monai.config import DtypeLike, KeysCollection, NdarrayOrTensor
from monai.data.meta_tensor import MetaTensor
from monai.transforms import MapLabelValue, MapTransform
from monai.utils import ImageMetaKey

# LiTS and KiTS19 alike: 0 background, 1 organ, 2 tumour inside the organ
TASKS: dict[str, dict[int, int]] = {
    "organ": {0: 0, 1: 1, 2: 1},
    "tumor": {0: 0, 1: 0, 2: 1},
    "multi": {0: 0, 1: 1, 2: 2},
}


def task_labels(task: str | Mapping[int, int]) -> dict[int, int]:
    """
    The table that a task maps the data set's labels with.

    Args:
        task: "organ" (organ with its tumours against the rest), "tumor" (tumours against the rest) or "multi" (organ 1,
            tumour 2), as EMKD's two tasks on LiTS and KiTS19; or a table {label in the file: label of the task}.

    Returns:
        {label in the file: label of the task}.

    Raises:
        ValueError: when the task is unknown.

    Example::

        >>> task_labels("tumor")
        {0: 0, 1: 0, 2: 1}
    """
    if isinstance(task, str):
        if task not in TASKS:
            raise ValueError(
                f"`task` must be one of {', '.join(TASKS)}, but got {task!r}; "
                "any other task is a table {label in the file: label of the task}."
            )
        return dict(TASKS[task])
    return {int(source): int(target) for source, target in task.items()}


class TaskLabeld(MapTransform):
    """
    Maps the labels of LiTS, KiTS19 or any other set to those of a task with :py:class:`monai.transforms.MapLabelValue`,
    and refuses labels that the task does not name.

    Args:
        keys: keys of the labels.
        task: see :py:func:`task_labels`.
        dtype: data type of the result; uint8 keeps cached slices small.
        allow_missing_keys: whether a missing key is no error.

    Shapes: (1, *spatial) to the same.

    Raises:
        ValueError: when the task is unknown, or a label's value is not in its table.

    Example::

        >>> TaskLabeld("label", "tumor")({"label": np.array([[0, 1, 2]])})["label"]
        array([[0, 0, 1]], dtype=uint8)
    """

    def __init__(
        self,
        keys: KeysCollection,
        task: str | Mapping[int, int] = "tumor",
        dtype: DtypeLike = np.uint8,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, allow_missing_keys)
        self.table = task_labels(task)
        self.mapper = MapLabelValue(list(self.table), list(self.table.values()), dtype=dtype)

    def __call__(self, data: Mapping[Hashable, NdarrayOrTensor]) -> dict[Hashable, NdarrayOrTensor]:
        d = dict(data)
        for key in self.key_iterator(d):
            self._check(d[key])
            d[key] = self.mapper(d[key])
        return d

    def _check(self, label: NdarrayOrTensor) -> None:
        values = np.asarray(label)
        strange = ~np.isin(values, list(self.table))
        if strange.any():
            meta = label.meta if isinstance(label, MetaTensor) else {}
            raise ValueError(
                f"`{meta.get(ImageMetaKey.FILENAME_OR_OBJ, 'label')}` must hold the labels {sorted(self.table)}, "
                f"but got {np.unique(values[strange])[:5].tolist()} too; name them in `task`, as {{label: 0}}."
            )
