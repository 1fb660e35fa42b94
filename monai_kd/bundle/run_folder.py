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

"""A folder for each task and fold."""

from __future__ import annotations

DEFAULT_TASK = "tumor"


def run_folder(root: str, name: str, task: str = DEFAULT_TASK, fold: int = 0) -> str:
    """
    Name the folder of a run. Each task and each fold has its own one.

    So no teacher is used that was trained for other classes or has seen the test cases.

    Args:
        root: folder of the bundle.
        name: what the folder is for, ``models``.
        task: what is segmented. The folders of the default task have no name of their own.
        fold: fold of the cross-validation. The folders of fold 0 have no name of their own.

    Example::

        >>> run_folder(".", "models"), run_folder(".", "models", "organ", fold=1)
        ('./models', './models/organ/fold1')
    """
    of_task = "" if task == DEFAULT_TASK else f"/{task}"
    of_fold = f"/fold{fold}" if fold else ""
    return f"{root}/{name}{of_task}{of_fold}"
