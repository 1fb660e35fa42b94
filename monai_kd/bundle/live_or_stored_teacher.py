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

"""A teacher that computes its soft labels, or reads those that were stored."""

from __future__ import annotations

from typing import Any

from monai.config import PathLike

from monai_kd.networks import StoredSoftLabel, Teacher


def live_or_stored_teacher(stored: bool, network: Any, checkpoint: PathLike | None = None) -> Teacher:
    """
    Make the teacher of a bundle whose soft labels may have been stored.

    Args:
        stored: whether the soft labels stand in the batch under ``soft_label``. Then no network
            and no weights are needed.
        network: the network of a teacher that computes them, as for
            :py:class:`~monai_kd.networks.Teacher`.
        checkpoint: its weights.

    Raises:
        FileNotFoundError: when the weights are needed and missing.
    """
    if stored:
        return Teacher(StoredSoftLabel(), image_key="soft_label")
    return Teacher(network, checkpoint)
