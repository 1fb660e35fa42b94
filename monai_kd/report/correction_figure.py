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

"""Pictures of a soft label that is repaired step by step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.utils import convert_to_numpy, convert_to_tensor

from monai_kd.corrections import CorrectedTeacher, false_pixels
from monai_kd.corrections.corrected_teacher import corrected_by, item_steps
from monai_kd.losses._channels import foreground
from monai_kd.networks import Teacher, TeacherTeam
from monai_kd.networks.teacher import plain
from monai_kd.report._picture import picture
from monai_kd.report.overlay import LABEL_COLOUR, _outline
from monai_kd.report.overlay import _as_seen as _turned

MISSED_COLOUR, EXTRA_COLOUR = "#ff3b30", "#ffcc00"


@dataclass
class CorrectionCase:
    """
    One row of a picture, see :py:func:`correction_figure`.

    Args:
        name: name of the case.
        image: (channels, *spatial), a photograph with three or a scan with one.
        label: class indices (1, *spatial), 0 is background.
        soft_labels: probabilities (C, *spatial), or of the foreground alone (1, *spatial), under the name of each step,
            the same names in every case; :py:class:`~monai_kd.corrections.CorrectionChain` gives them of a batch.
    """

    name: str
    image: Any
    label: Any
    soft_labels: Mapping[str, Any]


def correction_cases(
    dataset: Any,
    teacher: Teacher | TeacherTeam | CorrectedTeacher,
    corrections: Mapping[str, Any] | Sequence[Any] = (),
    device: torch.device | str = "cpu",
    image_key: str = "image",
    label_key: str = "label",
    picture_key: str = "image",
) -> list[CorrectionCase]:
    """
    Ask the teacher about each item of a dataset, for :py:func:`correction_figure`.

    Args:
        dataset: items with image (channels, *spatial) and label (1, *spatial), preprocessed as in training but for what
            is random. The name of a case is the item's ``"case"``, or its number.
        teacher: a :py:class:`~monai_kd.networks.Teacher`, :py:class:`~monai_kd.networks.TeacherTeam` or
            :py:class:`~monai_kd.corrections.CorrectedTeacher`, whose steps are shown.
        corrections: of a teacher without its own, the old form of a ``CorrectedTeacher``.
        device: where the networks run.
        image_key: entry of the image.
        label_key: entry of the label.
        picture_key: entry of what is drawn: an image before it was normalised has its true colours.

    Returns:
        a case for each item, its soft labels under ``"teacher"`` and the names of the corrections.

    Raises:
        ValueError: of a correction, when image and label do not fit.

    Example::

        >>> import torch
        >>> from monai_kd.corrections import SimilarityCorrection
        >>> data = [{"image": torch.rand(3, 8, 8), "label": torch.ones(1, 8, 8), "case": "01"}]
        >>> teacher = CorrectedTeacher(Teacher(torch.nn.Conv2d(3, 2, 1)), [SimilarityCorrection()])
        >>> (case,) = correction_cases(data, teacher)
        >>> case.name, list(case.soft_labels)
        ('01', ['teacher', 'similarity'])
    """
    teacher = corrected_by(teacher, corrections)
    teacher.to(device)
    cases = []
    for number in range(len(dataset)):
        item = dataset[number]
        steps = item_steps(item, teacher, device, image_key, label_key)
        soft_labels = {name: step[0].cpu() for name, step in steps.items()}
        name = str(item.get("case", number))
        cases.append(CorrectionCase(name, plain(item[picture_key]), plain(item[label_key]), soft_labels))
    return cases


def correction_figure(cases: Sequence[CorrectionCase], axcodes: str | None = None) -> bytes:
    """
    Draw an image, its label and the soft label after each correction with the number of pixels that are still false,
    one row a case, as Fig. 4 of PLC-KD (see :py:class:`~monai_kd.corrections.AssistantCorrection`).

    A soft label is drawn as the probability of all classes but the background, black 0 and white 1, with the outline of
    the label. False pixels are coloured: those of the lesion that are missed or taken for another class, and those of
    the background that are taken for a lesion. Of a volume the slice with most pixels that are false at first is drawn,
    or with most label where none is; the numbers are those of the volume.

    Args:
        cases: what to draw.
        axcodes: what the axes of a scan point to, as in :py:func:`~monai_kd.report.overlay`: ``LPS`` or ``RAS``. None
            for photographs, whose first axis is the height.

    Returns:
        the picture as PNG.

    Raises:
        ValueError: without a case, for arrays of different size, or for cases with other steps.

    Example::

        >>> import torch
        >>> from monai_kd.corrections import CorrectionChain, SimilarityCorrection
        >>> image, label = torch.rand(1, 3, 16, 16), torch.zeros(1, 1, 16, 16)
        >>> label[..., 4:9, 4:9] = 1
        >>> steps = CorrectionChain([SimilarityCorrection()])(torch.full((1, 2, 16, 16), 0.5), image, label)
        >>> case = CorrectionCase("01", image[0], label[0], {name: step[0] for name, step in steps.items()})
        >>> correction_figure([case])[1:4]
        b'PNG'
    """
    from matplotlib.patches import Patch

    steps = _steps(cases)
    names = {LABEL_COLOUR: "label", MISSED_COLOUR: "false, in the label", EXTRA_COLOUR: "false, in the background"}
    return picture(
        cases,
        ["image", "label", *steps],
        (2.0 * (2 + len(steps)), 2.3 * len(cases) + 0.5),
        lambda row, case: _draw_case(row, case, axcodes),
        [Patch(color=colour, label=name) for colour, name in names.items()],
    )


def _steps(cases: Sequence[CorrectionCase]) -> list[str]:
    """The names of the columns, once the arguments are known to fit together."""
    if not cases:
        raise ValueError("`cases` must hold at least one case, but got none.")
    steps = list(cases[0].soft_labels)
    for case in cases:
        if list(case.soft_labels) != steps or not steps:
            raise ValueError(
                f"`cases` must have the same soft labels, but got {list(case.soft_labels)} for {case.name} and {steps}."
            )
        if tuple(case.image.shape[1:]) != tuple(case.label.shape[1:]):
            shapes = f"{tuple(case.image.shape)} and {tuple(case.label.shape)}"
            raise ValueError(f"`image` must have the spatial size of `label`, but got {shapes} for {case.name}.")
    return steps


def _draw_case(row: np.ndarray, case: CorrectionCase, axcodes: str | None) -> None:
    label = _tensor(case.label)
    soft_labels = {name: _tensor(soft_label) for name, soft_label in case.soft_labels.items()}
    false = {name: false_pixels(soft_label, label)[0, 0] for name, soft_label in soft_labels.items()}
    index = None
    if label.ndim == 5:
        first = next(iter(false.values()))
        chosen = first if first.any() else label[0, 0] > 0
        index = int(chosen.sum((0, 1)).argmax())
    seen = [_as_seen(array, index, axcodes) for array in (case.image, label[0] > 0)]
    image, mask = _displayed(seen[0]), seen[1][..., 0]
    grey: dict[str, Any] = {"cmap": "gray", "vmin": 0, "vmax": 1, "interpolation": "nearest"}
    row[0].imshow(image, **grey)
    row[1].imshow(mask, **grey)
    row[0].set_ylabel(case.name if index is None else f"{case.name}, slice {index}", fontsize=8)
    for axes, (name, soft_label) in zip(row[2:], soft_labels.items(), strict=True):
        axes.imshow(_as_seen(foreground(soft_label)[0], index, axcodes)[..., 0], **grey)
        _outline(axes, mask, LABEL_COLOUR)
        wrong = _as_seen(false[name][None], index, axcodes)[..., 0]
        axes.imshow(_coloured(wrong, mask), interpolation="nearest")
        axes.set_xlabel(f"{int(false[name].sum()):,} false", fontsize=8)
    for axes in row:
        axes.set(xticks=[], yticks=[], xlim=(-0.5, mask.shape[1] - 0.5), ylim=(mask.shape[0] - 0.5, -0.5))


def _tensor(array: Any) -> torch.Tensor:
    """A batch of one, without metadata."""
    return convert_to_tensor(array, track_meta=False, device="cpu")[None]


def _as_seen(array: Any, index: int | None, axcodes: str | None) -> np.ndarray:
    """(y, x, channels) of (channels, *spatial), of a volume one slice."""
    array = convert_to_numpy(array)
    array = array if index is None else array[..., index]
    array = np.moveaxis(array, 0, -1)
    return array if axcodes is None else _turned(array, axcodes)


def _displayed(image: np.ndarray) -> np.ndarray:
    """Values from 0 to 1: as they are, or scaled where an image was normalised."""
    image = image if image.shape[-1] == 3 else image[..., :1].repeat(3, axis=-1)
    low, high = float(image.min()), float(image.max())
    if low < 0 or high > 1:
        low, high = np.percentile(image, [1, 99])
        image = (image - low) / max(float(high - low), 1e-8)
    return image.clip(0, 1).astype(float)


def _coloured(wrong: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """(y, x, RGBA): transparent but for false pixels."""
    picture = np.zeros((*wrong.shape, 4))
    for where, colour in ((wrong & mask, MISSED_COLOUR), (wrong & ~mask, EXTRA_COLOUR)):
        picture[where] = [*(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)), 1.0]
    return picture
