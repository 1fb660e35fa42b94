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

"""What the losses of KDAS share: the self-attention of both networks' maps, and the divergence of two distributions."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ._inputs import check_option, resize

# the attention matrix of so many tokens takes 1 GiB in single precision, for each map, where no kernel fuses it
MAX_TOKENS = 16384


def attend(
    student: torch.Tensor, teacher: torch.Tensor, tokens: str, pool: int | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return softmax(z z^T / sqrt(d)) z of both maps, each channel by itself, in the shape of the pooled maps.

    Args:
        student: map of shape (B, C, *spatial).
        teacher: map of that shape.
        tokens: ``"rows"`` for the lines along the last axis, of all slices of a volume, as tokens of d = W features;
            ``"pixels"`` for every pixel as a token of d = 1.
        pool: number of pixels along an axis that both maps are averaged to where they have more; None for all.

    Raises:
        ValueError: when the shapes differ, or there are more than ``MAX_TOKENS`` tokens.

    """
    if student.shape != teacher.shape:
        raise ValueError(
            f"`student` must have the shape of `teacher`, but got {tuple(student.shape)} and {tuple(teacher.shape)}; "
            "an adapter may resize the student's map or change its channels."
        )
    if pool is not None:
        size = [min(pool, pixels) for pixels in student.shape[2:]]
        student, teacher = resize(student, size, "area"), resize(teacher, size, "area")
    last = student.ndim if tokens == "pixels" else student.ndim - 1
    count = student.shape[2:last].numel()
    if count > MAX_TOKENS:
        raise ValueError(
            f"`student` must have at most {MAX_TOKENS} {tokens}, but got {count} of the spatial size "
            f"{tuple(student.shape[2:])}: an attention matrix of {4 * count**2 / 2**30:.1f} GiB for each map; "
            f"pass a `pool` of at most {int(MAX_TOKENS ** (1 / (last - 2)))}."
        )
    return _self_attention(student, tokens), _self_attention(teacher, tokens)


def divergence(log_student: torch.Tensor, log_teacher: torch.Tensor, temperature: float) -> torch.Tensor:
    """Return temperature^2 * KL(teacher || student) over the last axis, the mean over the others."""
    kl = F.kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(dim=-1)
    return temperature**2 * kl.mean()


def check_attention(tokens: str, pool: int | None) -> None:
    """Refuse arguments of a constructor that ``attend`` could not follow.

    Raises:
        ValueError: when the tokens are none of those named, or the pooling is not to a whole number above 0.

    """
    check_option("tokens", tokens, ("rows", "pixels"))
    if pool is not None and (not isinstance(pool, int) or isinstance(pool, bool) or pool < 1):
        raise ValueError(f"`pool` must be a whole number of pixels above 0, but got {pool!r}.")


def _self_attention(z: torch.Tensor, tokens: str) -> torch.Tensor:
    token = z.flatten(2).unsqueeze(-1) if tokens == "pixels" else z.flatten(2, -2)  # (B, C, tokens, features)
    return F.scaled_dot_product_attention(token, token, token).reshape(z.shape)
