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

"""From logits to soft labels and back."""

from __future__ import annotations

import torch

from monai_kd.losses._channels import probabilities
from monai_kd.networks._plain import plain


def as_soft_label(logits: torch.Tensor) -> torch.Tensor:
    """
    The :py:func:`probabilities` that logits mean, as a target.

    Args:
        logits: (B, C, *spatial).

    Returns:
        (B, C, *spatial) in single precision at least, without metadata and gradient.

    Example::

        >>> import torch
        >>> as_soft_label(torch.zeros(1, 4, 1, 1)).flatten()
        tensor([0.2500, 0.2500, 0.2500, 0.2500])
    """
    return probabilities(_at_least_single(logits))


def as_logits(soft_label: torch.Tensor) -> torch.Tensor:
    """
    Logits z whose softmax is a soft label p, of one channel whose sigmoid is:

    .. math:: z_c = \\log(p_c / \\max_k p_k), \\qquad z = \\log(p / (1 - p)) \\text{ of one channel}.

    Softmax does not see what all logits of a pixel have in common. So with any temperature these say the same as the
    logits that the soft label came from: softmax(z / T) is p^(1/T), scaled to sum 1. The largest is 0 and the others
    are below it, also those that differ from it in the last bit, so that the most probable class stays the same.

    Probabilities of 0 have no logarithm: they are taken for 1e-38 of the largest one, a logit of -87. Of one channel
    there is also the other end: single precision knows no probability between 1 - 6e-8, a logit of 16.6, and 1, which
    is taken for it.

    Args:
        soft_label: probabilities (B, C, *spatial) that sum to 1 over C, or of the foreground alone (B, 1, *spatial).

    Returns:
        (B, C, *spatial) in single precision at least, without metadata and gradient.

    Example::

        >>> import torch
        >>> as_logits(torch.tensor([0.75, 0.25]).view(1, 2, 1, 1)).softmax(1).flatten()
        tensor([0.7500, 0.2500])
    """
    soft_label = _at_least_single(soft_label)
    limits = torch.finfo(soft_label.dtype)
    if soft_label.shape[1] == 1:
        return torch.logit(soft_label.clamp(limits.tiny, 1 - limits.eps / 2))
    return (soft_label / soft_label.amax(1, keepdim=True)).clamp(min=limits.tiny).log()


def _at_least_single(tensor: torch.Tensor) -> torch.Tensor:
    tensor = plain(tensor).detach()
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
