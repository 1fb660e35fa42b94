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

"""A second network repairs what the teacher got wrong."""

from __future__ import annotations

from collections.abc import Callable
from os import PathLike

import torch
from torch import nn

from monai_kd.corrections._inputs import check_soft_label
from monai_kd.losses._channels import most_probable, probabilities
from monai_kd.networks import Teacher, TeacherTeam
from monai_kd.networks.isolated_rng import isolated_rng


class AssistantCorrection:
    """
    Replaces a soft label, where its most probable class is not the label's, by what an assistant says of the image:

    .. math:: y' = f(y) \\, a(x) + (1 - f(y)) \\, y, \\qquad f(y) = [\\arg\\max y \\ne label],

    pixel by pixel, with a(x) the assistant's probabilities. What was right stays as it is to the last bit, so that the
    number of false pixels never grows. Wang et al., "Progressively Correcting Soft Labels via Teacher Team for
    Knowledge Distillation in Medical Image Segmentation", MICCAI 2024, Sec. 2.1, stage 2: once with the
    false-pixel-aware and once with the boundary-aware assistant. The paper has no code and leaves open how an
    assistant refines a probability map; to replace all of a false pixel and nothing else is our reading. It needs the
    label, which training has.

    The assistant is frozen, in eval mode, without gradient, and leaves torch's random state alone. It is held in a
    :py:class:`~monai_kd.networks.Teacher`, out of sight of optimizers, checkpoints and DDP.

    Args:
        network: the assistant: a module, a callable that builds one, a bundle folder or a TorchScript file, as
            :py:class:`~monai_kd.networks.Teacher` takes them; or a ``Teacher`` or ``TeacherTeam`` itself.
        checkpoint: file of weights for ``network``.

    Raises:
        TypeError: when ``network`` is none of these.
        ValueError: when ``checkpoint`` is given with a ``Teacher``, which has its weights.

    Example::

        >>> import torch
        >>> correction = AssistantCorrection(torch.nn.Conv2d(3, 2, 1))
        >>> soft_label, label = torch.full((1, 2, 8, 8), 0.5), torch.zeros(1, 1, 8, 8)  # class 0 everywhere: right
        >>> torch.equal(correction(soft_label, torch.rand(1, 3, 8, 8), label), soft_label)
        True
    """

    def __init__(
        self,
        network: nn.Module | Callable[[], nn.Module] | Teacher | TeacherTeam | str | PathLike,
        checkpoint: str | PathLike | None = None,
    ) -> None:
        ready = isinstance(network, (Teacher, TeacherTeam))
        if ready and checkpoint is not None:
            raise ValueError(
                f"`checkpoint` must be None for a {type(network).__name__}, but got `{checkpoint}`; "
                "pass it to the `Teacher`."
            )
        self.assistant: Teacher | TeacherTeam = network if ready else Teacher(network, checkpoint)  # type: ignore

    @torch.no_grad()
    def __call__(self, soft_label: torch.Tensor, image: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """
        Args:
            soft_label: probabilities (B, C, *spatial) that sum to 1 over C, or of the foreground alone
                (B, 1, *spatial).
            image: (B, channels, *spatial), what the assistant sees.
            label: class indices (B, 1, *spatial) of any dtype.

        Returns:
            a new soft label of the same shape and dtype.

        Raises:
            TypeError: when a soft label or label is not a tensor.
            ValueError: when the shapes do not fit, or the values are no probabilities or class indices.
        """
        soft_label, label = check_soft_label(soft_label, label)
        with isolated_rng():
            logits = self.assistant(image).logits.float()
        if logits.shape != soft_label.shape:
            raise ValueError(
                "`network` must give logits of the shape of `soft_label`, "
                f"but got {tuple(logits.shape)} and {tuple(soft_label.shape)}."
            )
        return torch.where(most_probable(soft_label) != label, probabilities(logits).to(soft_label.dtype), soft_label)

    def to(self, device: torch.device | str) -> AssistantCorrection:
        """Move the assistant to a device."""
        self.assistant.to(device)
        return self
