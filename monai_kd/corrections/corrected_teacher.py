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

"""A teacher whose soft labels are repaired with the label."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from monai_kd.corrections.correction_chain import Correction, CorrectionChain, class_indices
from monai_kd.corrections.false_pixels import false_pixels
from monai_kd.networks import FeatureCapture, Knowledge, Teacher, TeacherTeam
from monai_kd.networks.soft_label import as_logits, as_soft_label
from monai_kd.networks.teacher import plain


class CorrectedTeacher:
    """
    A teacher whose soft labels are repaired by a chain of corrections. Wang et al., "Progressively
    Correcting Soft Labels via Teacher Team for Knowledge Distillation in Medical Image
    Segmentation", MICCAI 2024, Sec. 2.1, stage 2:

    .. math:: Y^I = T(X) \\to Y^F \\to Y^B \\to Y^U, \\qquad
        L = L_{seg}(student, label) + \\lambda \\, KL(Y^U || student) \\quad \\text{(Eq. 1)},

    with two :py:class:`~monai_kd.corrections.AssistantCorrection` and one
    :py:class:`~monai_kd.corrections.SimilarityCorrection`. A part is left out by leaving it out of
    the list (Table 2). A :py:class:`~monai_kd.handlers.DistillationHandler` takes it as its
    teacher. So do :py:func:`~monai_kd.corrections.store_soft_labels` and
    :py:func:`~monai_kd.report.correction_cases`.

    The outputs are logits. Where a correction has changed the soft label p they are log p, see
    :py:func:`~monai_kd.networks.soft_label.as_logits`. Their softmax is p. With a temperature T
    they give p^(1/T), scaled to sum 1, as any logits of p do. All other pixels keep the teacher's
    logits to the last bit. Features and the members of a team are not repaired. Of a teacher with
    several outputs the one of full resolution is repaired. The others would contradict it and are
    dropped.

    The assistants are frozen, in eval mode and without gradient, as the teacher is.

    Args:
        teacher: the teacher or a team.
        corrections: what repairs, in this order, under a name each; of a sequence the names are
            those of the classes.

    Raises:
        TypeError: when a correction cannot be called.
        ValueError: when there is no correction, or (as it runs) there is no label, or one that does
            not fit the teacher's classes.

    Example::

        >>> from monai_kd.corrections import CorrectedTeacher, SimilarityCorrection
        >>> teacher = Teacher(nn.Conv2d(3, 2, 1))
        >>> corrected = CorrectedTeacher(teacher, {"similarity": SimilarityCorrection()})
        >>> batch = {"image": torch.rand(1, 3, 8, 8), "label": torch.ones(1, 1, 8, 8)}
        >>> bool((corrected(batch).logits.argmax(1) == 1).all())
        True
    """

    label_key = "label"

    def __init__(
        self,
        teacher: Teacher | TeacherTeam,
        corrections: Mapping[str, Correction] | Sequence[Correction],
    ) -> None:
        self.teacher = teacher
        self.chain = CorrectionChain(corrections)
        self._counts: torch.Tensor | None = None  # false pixels after each step, and images

    @torch.no_grad()
    def __call__(self, batch: Mapping[str, torch.Tensor]) -> Knowledge:
        """
        Args:
            batch: the images (B, channels, *spatial) under :py:attr:`image_keys` and under
                ``"label"`` class indices (B, 1, *spatial), or one-hot (B, classes, *spatial). A
                label of fewer images than B leaves the last ones as they are.

        Returns:
            the repaired logits (B, C, *spatial), features and members.
        """
        label = batch.get(self.label_key)
        if not isinstance(label, torch.Tensor):
            raise ValueError(
                f"`label` must come with each batch to correct soft labels with it, but got {type(label).__name__}."
            )
        knowledge = self.teacher(batch)
        whole = plain(knowledge.logits)
        logits = whole[: len(label)]
        steps = self._repaired(logits, batch, label)
        before, *_, after = steps.values()
        changed = (after != before).any(1, keepdim=True)
        repaired = torch.where(changed, as_logits(after), logits)
        knowledge.outputs = [torch.cat([repaired, whole[len(label) :]])]
        self._count(list(steps.values()), class_indices(label))
        return knowledge

    @torch.no_grad()
    def steps(self, batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """
        Args:
            batch: as in a call, with a label for each image.

        Returns:
            soft labels (B, C, *spatial) of the teacher under ``"teacher"``, and after each
            correction under its name.
        """
        return self._repaired(self.teacher(batch).logits, batch, batch[self.label_key])

    def _repaired(
        self, logits: torch.Tensor, batch: Mapping[str, torch.Tensor], label: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        images = {key: batch[key][: len(label)] for key in self.chain.image_keys}
        return self.chain(as_soft_label(logits), images, label)

    # how many pixels are false

    def forget_counts(self) -> None:
        """Count false pixels from zero."""
        self._counts = None

    def false_pixels(self) -> dict[str, float]:
        """
        The false pixels of an image, the mean over all images of all ranks since
        :py:meth:`forget_counts`.

        Returns:
            of the teacher under ``"teacher"``, and what each correction leaves under its name;
            empty before the first image.
        """
        if self._counts is None:
            return {}
        counts = self._counts.clone()
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(counts)
        *totals, images = counts.tolist()
        names = ["teacher", *self.chain.corrections]
        return {name: total / images for name, total in zip(names, totals)}

    def _count(self, steps: list[torch.Tensor], label: torch.Tensor) -> None:
        counts = [false_pixels(step, label).sum() for step in steps]
        counts.append(torch.full_like(counts[0], len(label)))
        batch = torch.stack(counts).double()
        self._counts = batch if self._counts is None else self._counts + batch

    # as a teacher has them

    @property
    def network(self) -> Any:
        """The teacher's network; None of a team."""
        return getattr(self.teacher, "network", None)

    @property
    def activation(self) -> str | None:
        """Of a team, else None."""
        return getattr(self.teacher, "activation", None)

    @property
    def members(self) -> dict[str, Teacher]:
        """The teachers of a team by name."""
        return self.teacher.members

    @property
    def image_keys(self) -> set[str]:
        """The entries of the batch that teacher and assistants need."""
        return self.teacher.image_keys | self.chain.image_keys

    @property
    def weights_files(self) -> list[Path]:
        """The files that the weights of teacher and assistants come from."""
        assistants = self.chain.assistants.values()
        return [file for each in (self.teacher, *assistants) for file in each.weights_files]

    def capture(self, layers: Sequence[str], member: str | None = None) -> FeatureCapture:
        """Record these layers of the teacher at each call from now on."""
        return self.teacher.capture(layers, member)

    def to(self, device: torch.device | str) -> CorrectedTeacher:
        """Move teacher and assistants to a device."""
        self.teacher.to(device)
        self.chain.to(device)
        return self

    def parameters(self) -> Iterator[nn.Parameter]:
        """The frozen weights of teacher and assistants."""
        yield from self.teacher.parameters()
        for assistant in self.chain.assistants.values():
            yield from assistant.parameters()

    def named_tensors(self) -> dict[str, torch.Tensor]:
        """Weights and buffers by name; an assistant's begins with that of its correction."""
        found = dict(self.teacher.named_tensors())
        for name, assistant in self.chain.assistants.items():
            for key, tensor in assistant.named_tensors().items():
                found[f"{name}.{key}"] = tensor
        return found


def item_steps(
    item: Mapping[str, Any],
    teacher: Teacher | TeacherTeam | CorrectedTeacher,
    device: torch.device | str,
    image_key: str,
    label_key: str,
) -> dict[str, torch.Tensor]:
    """
    The soft label of an item of a dataset.

    Args:
        item: with image (channels, *spatial) and label (1, *spatial), which only corrections need.
        teacher: it is on the device.
        device: where the networks run.
        image_key: entry of the image.
        label_key: entry of the label.

    Returns:
        soft labels (1, C, *spatial) under ``"teacher"`` and the names of the corrections.
    """
    corrected = isinstance(teacher, CorrectedTeacher)
    keys = {image_key, *(teacher.image_keys - ({"image"} if corrected else set()))}
    keys |= {label_key} if corrected else set()
    batch = {key: torch.as_tensor(plain(item[key]))[None].to(device) for key in keys}
    batch["image"] = batch[image_key]
    if isinstance(teacher, CorrectedTeacher):
        return teacher.steps(batch | {teacher.label_key: batch[label_key]})
    return {"teacher": as_soft_label(teacher(batch).logits)}


def corrected_by(
    teacher: Teacher | TeacherTeam | CorrectedTeacher,
    corrections: Mapping[str, Correction] | Sequence[Correction],
) -> Teacher | TeacherTeam | CorrectedTeacher:
    """The teacher with corrections that were given apart, if there are any."""
    if not corrections:
        return teacher
    if isinstance(teacher, CorrectedTeacher):
        raise ValueError("`corrections` must be empty for a `CorrectedTeacher`, which has its own.")
    return CorrectedTeacher(teacher, corrections)
