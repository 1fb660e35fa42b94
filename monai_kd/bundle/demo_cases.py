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

"""The generated cases of the demo: another hospital's, and few labelled ones here."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from monai_kd.data import ct_phantom
from monai_kd.transforms import CTWindow

CLASSES = ["liver", "tumor"]
SIZE = 64
SLICES = 6  # of a case, 8 mm apart: enough to cross the liver
LABELLED = 4  # cases with a label here
FEWEST_CASES = 36  # a sixth of them are 6 test cases, of which a paired test needs so many
WINDOW = CTWindow(level=85.0, width=150.0)  # liver and tumors, without fat and bone


@dataclass
class DemoCases:
    """
    What each network is trained with and what all are tested on. A case has ``case``, ``image``
    (1, X, Y, Z) in [0, 1] and ``label`` of the same shape.

    Args:
        elsewhere: labelled cases of another hospital, which the teacher is trained with.
        labelled: the few labelled cases here.
        unlabelled: cases here whose labels are not used.
        validation: shows how training goes; nothing is selected by it.
        test: what all networks are compared on.
    """

    elsewhere: list[dict[str, Any]]
    labelled: list[dict[str, Any]]
    unlabelled: list[dict[str, Any]]
    validation: list[dict[str, Any]]
    test: list[dict[str, Any]]


def demo_cases(number: int, seed: int) -> DemoCases:
    """
    Generate the cases: half of them elsewhere, a sixth for the test, a thirtieth for validation,
    4 labelled, and the rest unlabelled.

    Args:
        number: of cases in all, at least 36.
        seed: the same seed gives the same cases.

    Raises:
        ValueError: when ``number`` is too small.

    Example::

        >>> cases = demo_cases(36, seed=0)
        >>> len(cases.elsewhere), len(cases.labelled), len(cases.unlabelled), len(cases.test)
        (18, 4, 7, 6)
    """
    if number < FEWEST_CASES:
        raise ValueError(f"`num_cases` must be >= {FEWEST_CASES}, but got {number}.")
    sizes = {
        "elsewhere": number // 2,
        "labelled": LABELLED,
        "validation": max(1, number // 30),
        "test": number // 6,
    }
    sizes["unlabelled"] = number - sum(sizes.values())
    groups = {}
    for place, (name, size) in enumerate(sizes.items()):
        groups[name] = [_case(seed, place, index) for index in range(size)]
    return DemoCases(**groups)


def _case(seed: int, place: int, index: int) -> dict[str, Any]:
    draw = np.random.RandomState([seed, place, index])
    phantom = ct_phantom(int(draw.randint(2**31)), SIZE, SLICES)
    image = WINDOW(torch.from_numpy(phantom.image[None]).float())
    return {
        "case": f"case_{index:03d}",
        "image": torch.as_tensor(image).as_subclass(torch.Tensor),
        "label": torch.from_numpy(phantom.label[None]).long(),
    }


class SliceBatches:
    """
    A loader of random axial slices, turned, scaled, shifted, brightened and with noise. It works
    on whole batches, since slice by slice costs more than training. Loaders of one seed give equal
    batches.

    Args:
        cases: of :py:func:`demo_cases`.
        batch_size: slices in a batch.
        iterations: batches in an epoch.
        seed: of the draws.
        label: whether a batch has its labels.

    Example::

        >>> cases = demo_cases(36, seed=0).labelled
        >>> next(iter(SliceBatches(cases, batch_size=2, iterations=1, seed=0)))["image"].shape
        torch.Size([2, 1, 64, 64])
    """

    def __init__(
        self,
        cases: Sequence[dict[str, Any]],
        batch_size: int,
        iterations: int,
        seed: int,
        label: bool = True,
    ) -> None:
        self.images = _slices(cases, "image")
        self.labels = _slices(cases, "label").float()
        self.batch_size = batch_size
        self.iterations = iterations
        self.label = label
        self.draws = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return self.iterations

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        for _ in range(self.iterations):
            yield self._batch()

    def _batch(self) -> dict[str, torch.Tensor]:
        size = self.batch_size
        draws = self.draws
        index = torch.randint(len(self.images), (size,), generator=draws)
        shape = [size, 1, SIZE, SIZE]
        grid = F.affine_grid(self._moves(), shape, align_corners=False)
        image = _resampled(self.images[index], grid, "bilinear")
        contrast, brightness = self._uniform(2, size, 1, 1, 1)
        image = image * (1 + 0.1 * contrast) + 0.05 * brightness
        noise = torch.randn(image.shape, generator=draws)
        image = image + 0.03 * noise
        if not self.label:
            return {"image": image}
        label = _resampled(self.labels[index], grid, "nearest")
        return {"image": image, "label": label.long()}

    def _moves(self) -> torch.Tensor:
        """Turns by up to 10 degrees, zooms by up to 12 % and shifts by up to 4 pixels."""
        zoom, turn, right, down = self._uniform(4, self.batch_size)
        zoom, turn = 1 + 0.12 * zoom, 0.17 * turn
        cos, sin = zoom * turn.cos(), zoom * turn.sin()
        rows = [cos, -sin, 0.12 * right, sin, cos, 0.12 * down]
        return torch.stack(rows, dim=1).view(-1, 2, 3)

    def _uniform(self, *shape: int) -> torch.Tensor:
        return 2 * torch.rand(shape, generator=self.draws) - 1


def _slices(cases: Sequence[dict[str, Any]], key: str) -> torch.Tensor:
    """(N, 1, X, Y) of all cases."""
    return torch.cat([case[key].permute(3, 0, 1, 2) for case in cases])


def _resampled(maps: torch.Tensor, grid: torch.Tensor, mode: str) -> torch.Tensor:
    return F.grid_sample(
        maps,
        grid,
        mode=mode,
        padding_mode="border",
        align_corners=False,
    )
