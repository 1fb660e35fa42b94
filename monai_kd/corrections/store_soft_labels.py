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

"""Corrected soft labels, computed once."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.config import PathLike

from monai_kd.corrections.corrected_teacher import CorrectedTeacher, corrected_by, item_steps
from monai_kd.corrections.correction_chain import Correction, describe_chain
from monai_kd.data.progress_bar import progress_bar
from monai_kd.data.write_aside import remove_left
from monai_kd.networks import Teacher, TeacherTeam
from monai_kd.networks.soft_label import as_logits
from monai_kd.transforms.soft_label_file import (
    CLASSES,
    CORRECTIONS,
    WEIGHTS_KEY,
    soft_label_path,
    stored_origin,
    write_soft_label,
)

logger = logging.getLogger(__name__)
MARGIN = 2.0**-20


def store_soft_labels(
    dataset: Any,
    teacher: Teacher | TeacherTeam | CorrectedTeacher,
    folder: PathLike,
    weights_key: str,
    corrections: Mapping[str, Correction] | Sequence[Correction] = (),
    device: torch.device | str = "cpu",
    image_key: str = "image",
    label_key: str = "label",
    progress: bool = False,
) -> int:
    """
    Asks the teacher once about each image and stores its soft label for
    :py:class:`~monai_kd.transforms.LoadSoftLabeld`, so that training needs no teacher: three TransUNets are more than
    a third of the computation of a PLC-KD step. What is stored for the same image, label, weights, classes and
    corrections (:py:func:`~monai_kd.corrections.correction_chain.describe_chain`) already is left as it is, so that a
    run that was stopped goes on; the teacher is always asked about the first image, which tells its number of classes.
    Files that are broken are written again; those of the same images with other weights or corrections are replaced,
    so keep what is to stay in a folder of its own.

    A file holds ``logits`` in half precision, see :py:func:`~monai_kd.networks.soft_label.as_logits`, off by 2^-11 of
    itself at most. So with any temperature a probability of C classes is off by less than 2^-11 (0.37 + log C), 5e-4
    for two, and the most probable class is the same: its logit, 0, is exact, and all others are kept 1e-6 below.

    Args:
        dataset: items with image (channels, *spatial) and label (1, *spatial), preprocessed as in training but for what
            is random.
        teacher: a :py:class:`~monai_kd.networks.Teacher`, :py:class:`~monai_kd.networks.TeacherTeam` or
            :py:class:`~monai_kd.corrections.CorrectedTeacher`.
        folder: where to; it is made if it is missing.
        weights_key: what they come from, see :py:func:`~monai_kd.corrections.weights_key`.
        corrections: of a teacher without its own, the old form of a ``CorrectedTeacher``.
        device: where the networks run.
        image_key: entry of the image.
        label_key: entry of the label.
        progress: whether to show a bar.

    Returns:
        how many were computed.

    Raises:
        ValueError: of a correction, when image and label do not fit.

    Example::

        >>> import tempfile
        >>> from monai_kd.corrections import CorrectedTeacher, SimilarityCorrection, store_soft_labels
        >>> data = [{"image": torch.rand(3, 8, 8), "label": torch.ones(1, 8, 8)}]
        >>> teacher = CorrectedTeacher(Teacher(torch.nn.Conv2d(3, 2, 1)), [SimilarityCorrection()])
        >>> folder = tempfile.mkdtemp()
        >>> [store_soft_labels(data, teacher, folder, "1") for _ in range(2)]
        [1, 0]
    """
    root = Path(folder).expanduser()
    root.mkdir(parents=True, exist_ok=True)
    remove_left(root)
    teacher = corrected_by(teacher, corrections)
    teacher.to(device)
    described = describe_chain(teacher.chain) if isinstance(teacher, CorrectedTeacher) else ""
    origin = {WEIGHTS_KEY: weights_key, CORRECTIONS: described}
    computed = 0
    for index in progress_bar(range(len(dataset)), "soft labels", len(dataset), progress):
        item = dataset[index]
        path = soft_label_path(root, item[image_key], item[label_key])
        found = stored_origin(path)
        if found == origin:
            continue
        *_, soft_label = item_steps(item, teacher, device, image_key, label_key).values()
        origin[CLASSES] = str(soft_label.shape[1])
        if found == origin:
            continue
        write_soft_label(path, stored_logits(soft_label)[0], origin)
        computed += 1
    logger.info(f"{computed} soft labels stored in {root}, {len(dataset) - computed} were there already")
    return computed


def stored_logits(soft_label: torch.Tensor) -> torch.Tensor:
    """The logits (B, C, *spatial) of a soft label in half precision, with the same most probable class."""
    logits = as_logits(soft_label)
    if logits.shape[1] > 1:
        top = soft_label.argmax(1, keepdim=True)  # of equal ones the first, which the others are kept below
        logits = logits.clamp(max=-MARGIN).scatter(1, top, 0.0)
    return logits.half().contiguous()
