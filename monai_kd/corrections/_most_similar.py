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

"""Search for the most similar pixel without the matrix of all pairs."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from monai_kd.losses._inputs import autocast_disabled


def most_similar(pixels: torch.Tensor, candidates: torch.Tensor, memory_mb: float) -> torch.Tensor:
    """
    Find for each pixel the candidate of the largest cosine similarity, which is 0 where one of the two is black; for a
    black pixel, which has no direction, a black one if there is one; of one channel, where no pixel has a direction,
    the one of the nearest value.

    Args:
        pixels: (P, D).
        candidates: (Q, D), at least one.
        memory_mb: bound on the block of pairs that is looked at in one step, in MiB; beside it memory grows with
            P + Q only.

    Returns:
        indices of candidates, (P,).
    """
    pixels, candidates, offset = _centred(pixels, candidates)
    pairs = max(1, int(memory_mb * 2**20) // candidates.element_size())
    width = min(len(candidates), pairs)
    height = min(len(pixels), pairs // width)
    block = candidates.new_empty(height, width)  # one for all steps: allocating each would take as long as filling it
    best = candidates.new_full((len(pixels),), -torch.inf)
    index = torch.zeros(len(pixels), dtype=torch.long, device=pixels.device)
    with autocast_disabled(pixels):
        for row in range(0, len(pixels), height):
            rows = slice(row, row + height)
            for column in range(0, len(candidates), width):
                part, bias = candidates[column : column + width], offset[column : column + width]
                scores = block[: len(pixels[rows]), : len(part)]
                torch.addmm(bias, pixels[rows], part.T, out=scores)
                found = scores.argmax(1, keepdim=True)
                score = scores.gather(1, found)[:, 0]
                better = score > best[rows]
                index[rows] = torch.where(better, found[:, 0] + column, index[rows])
                best[rows] = torch.where(better, score, best[rows])
    return index


def _centred(pixels: torch.Tensor, candidates: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """
    Vectors and offset whose pixels @ candidates.T + offset has its maximum in each row where the similarity has it:
    of unit vectors the cosine is largest where the distance is smallest, p.q = 1 - |p - q|^2 / 2, and distances do not
    change with the origin. With the candidates' mean for origin there are differences left of colours so alike that
    their cosines round to one number (in TF32 most do). Black vectors get a direction of their own, square to all
    others.
    """
    if pixels.shape[1] > 1:
        pixels, candidates = _directions(pixels), _directions(candidates)
    mean = candidates.mean(0)
    pixels, candidates = pixels - mean, candidates - mean
    return pixels, candidates, -candidates.square().sum(1) / 2


def _directions(vectors: torch.Tensor) -> torch.Tensor:
    """Unit vectors (N, D + 1), the last element 1 for a zero vector and 0 for the others."""
    return torch.cat([F.normalize(vectors, dim=1), ~vectors.any(1, keepdim=True)], dim=1)
