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

"""The last false pixels take the word of the most similar pixel that is right."""

from __future__ import annotations

import torch

from monai_kd.corrections._inputs import check_size, check_soft_label
from monai_kd.corrections._most_similar import most_similar
from monai_kd.losses._channels import most_probable, of_two
from monai_kd.networks.teacher import plain

# by how much the label's class wins where nothing can be copied: above what bfloat16 rounds away
MARGIN = 0.01


class SimilarityCorrection:
    """
    Gives each false pixel of a soft label the probabilities of the right pixel that is most like it in the image:

    .. math:: y'_i = y_j, \\qquad j = \\arg\\max_{k \\in R_i} \\cos(x_i, x_k),

    with x the channels of a pixel and R_i the pixels of the same image and of the same label whose most probable class
    is right. Afterwards all are right, and those that were stay as they are to the last bit. Wang et al.,
    "Progressively Correcting Soft Labels via Teacher Team for Knowledge Distillation in Medical Image Segmentation",
    MICCAI 2024, Sec. 2.1, stage 2. Where the paper, which has no code, leaves it open:

    - It searches the right pixels, of any class; here those of the pixel's own class, since a pixel like it of another
      class would leave it false.
    - A class without a right pixel in the image has nothing to copy. There the probabilities of the label's class and
      of the predicted one are exchanged, which keeps the teacher's confidence, and mixed with 1% of the label, which
      decides between equals. Other images of the batch are not asked: what a sample's soft label is would depend on
      its company, and it could not be stored.
    - One channel has no direction, all cosines are 1 or -1: there the nearest value is the most similar. Images whose
      channels are copies of one another have the same trouble; give one of the channels.

    Pairs are looked at in blocks, the matrix of all is never there. Nothing is drawn from torch's random state.

    Args:
        memory_mb: bound on a block of pairs in MiB, above 0. The rest needs memory in proportion to the pixels. Small
            blocks stay in a CPU's cache; a GPU is faster with some hundred.
        max_candidates: right pixels of a class and image that are searched, a random draw where there are more;
            all where None.
        seed: of that draw, which is the same at each call.

    Raises:
        ValueError: when an argument is not positive.

    Example::

        >>> import torch
        >>> label = torch.tensor([0, 1, 1]).view(1, 1, 1, 3)
        >>> foreground = torch.tensor([0.1, 0.3, 0.8]).view(1, 1, 1, 3)  # the second is false
        >>> SimilarityCorrection()(foreground, torch.rand(1, 3, 1, 3), label).flatten()
        tensor([0.1000, 0.8000, 0.8000])
    """

    def __init__(self, memory_mb: float = 16.0, max_candidates: int | None = None, seed: int = 0) -> None:
        if not memory_mb > 0:
            raise ValueError(f"`memory_mb` must be above 0, but got {memory_mb}.")
        if max_candidates is not None and max_candidates < 1:
            raise ValueError(f"`max_candidates` must be at least 1 or None for all, but got {max_candidates}.")
        self.memory_mb = memory_mb
        self.max_candidates = max_candidates
        self.seed = seed

    @torch.no_grad()
    def __call__(self, soft_label: torch.Tensor, image: torch.Tensor, label: torch.Tensor) -> torch.Tensor:
        """
        Args:
            soft_label: probabilities (B, C, *spatial) that sum to 1 over C, or of the foreground alone
                (B, 1, *spatial).
            image: (B, channels, *spatial), or any other map of that size whose vectors tell pixels apart, as a feature.
            label: class indices (B, 1, *spatial) of any dtype.

        Returns:
            a new soft label of the same shape and dtype whose most probable class is the label's everywhere.

        Raises:
            TypeError: when an argument is not a tensor.
            ValueError: when the shapes do not fit, or the values are no probabilities or class indices.
        """
        soft_label, label = check_soft_label(soft_label, label)
        check_size("image", image, soft_label)
        vectors = plain(image).detach().flatten(2).to(torch.promote_types(image.dtype, torch.float32))
        false = (most_probable(soft_label) != label).flatten(1)  # (B, N)
        corrected = soft_label.clone(memory_format=torch.contiguous_format)
        for flat, pixels, wrong, classes in zip(corrected.flatten(2), vectors, false, label.flatten(1)):
            for number in classes[wrong].unique().tolist():
                members = (classes == number).nonzero()[:, 0]
                is_wrong = wrong[members]
                self._correct(flat, pixels, members[is_wrong], members[~is_wrong], number)
        return corrected

    def _correct(
        self, soft_label: torch.Tensor, pixels: torch.Tensor, wrong: torch.Tensor, right: torch.Tensor, number: int
    ) -> None:
        """Write the false pixels of one class into the soft label (C, N) of the pixels (channels, N) of an image."""
        if len(right) == 0:
            soft_label[:, wrong] = _exchanged(soft_label[:, wrong], number)
            return
        right = self._drawn(right)
        source = right[most_similar(pixels[:, wrong].T, pixels[:, right].T, self.memory_mb)]
        soft_label[:, wrong] = soft_label[:, source]

    def _drawn(self, right: torch.Tensor) -> torch.Tensor:
        if self.max_candidates is None or len(right) <= self.max_candidates:
            return right
        generator = torch.Generator().manual_seed(self.seed)
        drawn = torch.randperm(len(right), generator=generator)[: self.max_candidates]
        return right[drawn.to(right.device)]


def _exchanged(soft_label: torch.Tensor, number: int) -> torch.Tensor:
    """The probabilities (C, P) of false pixels with those of the predicted class and of class `number` exchanged."""
    before = soft_label.to(torch.promote_types(soft_label.dtype, torch.float32))
    before = of_two(before, dim=0)
    top, predicted = before.max(0, keepdim=True)
    after = before.scatter(0, predicted, before[number : number + 1])
    after[number] = top[0]
    after *= 1 - MARGIN
    after[number] += MARGIN
    return after[-len(soft_label) :].to(soft_label.dtype)
