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

"""Several corrections, one after the other."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from monai_kd.networks import Teacher, TeacherTeam
from monai_kd.networks.errors_of import errors_of
from monai_kd.networks.teacher import plain

Correction = Callable[..., torch.Tensor]


class CorrectionChain:
    """
    Repairs a soft label step by step and keeps what it was after each, from Y^I to Y^U in Sec. 2.1 of PLC-KD (see
    :py:class:`~monai_kd.corrections.AssistantCorrection`).

    Args:
        corrections: what repairs, in this order, under a name each; of a sequence the names are those of the classes
            (``assistant``, ``assistant_2``, ``similarity``). Each is called as ``correction(soft_label, image,
            label)``.

    Raises:
        TypeError: when a correction cannot be called.
        ValueError: when there is none, or one is named ``teacher``.

    Example::

        >>> import torch
        >>> from monai_kd.corrections import CorrectionChain, SimilarityCorrection
        >>> chain = CorrectionChain([SimilarityCorrection()])
        >>> list(chain(torch.full((1, 2, 4, 4), 0.5), torch.rand(1, 3, 4, 4), torch.zeros(1, 1, 4, 4)))
        ['teacher', 'similarity']
    """

    def __init__(self, corrections: Mapping[str, Correction] | Sequence[Correction]) -> None:
        self.corrections = dict(corrections) if isinstance(corrections, Mapping) else _by_name(corrections)
        if not self.corrections:
            raise ValueError("`corrections` must hold at least one correction, but got none.")
        if "teacher" in self.corrections:
            raise ValueError("`corrections` must not have the name `teacher`, which is that of the soft label before.")
        for name, correction in self.corrections.items():
            if not callable(correction):
                raise TypeError(
                    f"`corrections` must hold functions of (soft_label, image, label), but got "
                    f"{type(correction).__name__} for `{name}`."
                )

    @torch.no_grad()
    def __call__(
        self, soft_label: torch.Tensor, image: torch.Tensor | Mapping[str, torch.Tensor], label: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """
        Args:
            soft_label: probabilities (B, C, *spatial) that sum to 1 over C, or of the foreground alone
                (B, 1, *spatial).
            image: (B, channels, *spatial), or a mapping that holds it under ``"image"`` and those of assistants with
                another ``image_key`` under theirs.
            label: class indices (B, 1, *spatial) of any dtype, or one-hot (B, classes, *spatial).

        Returns:
            the soft label under ``"teacher"`` and what it was after each correction, under its name, in their order.

        Raises:
            TypeError, ValueError: of a correction, which the message names.
        """
        label = class_indices(label)
        steps = {"teacher": plain(soft_label)}
        for name, correction in self.corrections.items():
            with errors_of(f"correction `{name}`"):
                soft_label = correction(soft_label, self._seen_by(correction, image), label)
            steps[name] = soft_label
        return steps

    @staticmethod
    def _seen_by(correction: Correction, image: torch.Tensor | Mapping[str, torch.Tensor]) -> Any:
        assistant = getattr(correction, "assistant", None)
        if isinstance(image, torch.Tensor) or (assistant is not None and assistant.image_keys != {"image"}):
            return image
        return image["image"]

    @property
    def assistants(self) -> dict[str, Teacher | TeacherTeam]:
        """The networks that help, by the names of their corrections."""
        found = {name: getattr(correction, "assistant", None) for name, correction in self.corrections.items()}
        return {name: assistant for name, assistant in found.items() if assistant is not None}

    @property
    def image_keys(self) -> set[str]:
        """The entries of the batch that are needed."""
        return {"image"}.union(*(assistant.image_keys for assistant in self.assistants.values()))

    def to(self, device: torch.device | str) -> CorrectionChain:
        """Move the assistants to a device."""
        for assistant in self.assistants.values():
            assistant.to(device)
        return self


def describe_chain(chain: CorrectionChain) -> str:
    """
    What a chain does to a soft label, in one line: of each correction its name, its class and its options that are
    numbers, texts, booleans or None. Weights of assistants are not in it (see
    :py:func:`~monai_kd.corrections.weights_key`), nor is ``memory_mb``, which changes no result.

    Args:
        chain: the corrections.

    Returns:
        the corrections in their order, between semicolons.

    Example::

        >>> from monai_kd.corrections import CorrectionChain, SimilarityCorrection
        >>> describe_chain(CorrectionChain([SimilarityCorrection(max_candidates=1)]))
        'similarity SimilarityCorrection max_candidates 1 seed 0'
    """
    return "; ".join(
        " ".join([name, getattr(correction, "__name__", type(correction).__name__), *_options(correction)])
        for name, correction in chain.corrections.items()
    )


def _options(correction: Correction) -> list[str]:
    return [
        f"{key} {value!r}"
        for key, value in sorted(getattr(correction, "__dict__", {}).items())
        if isinstance(value, (bool, int, float, str, type(None))) and key != "memory_mb" and not key.startswith("_")
    ]


def class_indices(label: torch.Tensor) -> torch.Tensor:
    """
    The class indices (B, 1, *spatial) of a label that may be one-hot (B, classes, *spatial); no metadata.

    Raises:
        ValueError: when the classes overlap.
    """
    label = plain(label)
    if label.ndim < 2 or label.shape[1] == 1:
        return label
    most = label.sum(1, dtype=torch.float32).amax()
    if most > 1.05:
        raise ValueError(
            f"`label` must be of one class at each pixel, but got classes that overlap (a sum of {most.item():g} over "
            f"the channels {tuple(label.shape)}); a soft label has one right class at each pixel."
        )
    return label.argmax(1, keepdim=True)


def _by_name(corrections: Sequence[Correction]) -> dict[str, Correction]:
    named: dict[str, Correction] = {}
    for correction in corrections:
        own = getattr(correction, "__name__", type(correction).__name__)
        own = re.sub(r"Correction$", "", own) or own
        stem = name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", own).lower()
        number = 1
        while name in named:
            number += 1
            name = f"{stem}_{number}"
        named[name] = correction
    return named
