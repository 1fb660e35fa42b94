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

"""Drawn soft labels, images and labels, and what must hold of each repaired soft label."""

from __future__ import annotations

from typing import NamedTuple

import torch
from hypothesis import strategies as st


class Case(NamedTuple):
    """The arguments of a correction."""

    soft_label: torch.Tensor
    image: torch.Tensor
    label: torch.Tensor


def predicted(soft_label: torch.Tensor) -> torch.Tensor:
    """The class of each pixel by numpy, (B, 1, *spatial)."""
    probability = soft_label.double().numpy()
    return torch.from_numpy(
        (probability > 0.5).astype(int) if probability.shape[1] == 1 else probability.argmax(1)[:, None]
    )


def make_case(
    seed: int = 0,
    outputs: int = 2,
    channels: int = 3,
    spatial: tuple[int, ...] = (6, 7),
    kind: str = "any",
    dtype: torch.dtype = torch.float32,
) -> Case:
    """A soft label that is right and wrong by chance, or all right, all wrong, undecided, or of one class missed."""
    generator = torch.Generator().manual_seed(seed)
    classes = max(2, outputs)
    label = torch.randint(0, classes, (2, 1, *spatial), generator=generator)
    label[0] = torch.where(label[0] == classes - 1, 0, label[0])  # the first image lacks the last class
    logits = 2 * torch.randn(2, classes, *spatial, generator=generator)
    one_hot = torch.zeros_like(logits).scatter(1, label, 1.0)
    if kind == "right":
        logits += 100 * one_hot
    elif kind == "wrong":
        logits -= 100 * one_hot
    elif kind == "undecided":
        logits *= 0
    elif kind == "missed":
        logits[:, 1] = -100
    soft_label = logits.softmax(1).to(dtype)
    image = torch.rand(2, channels, *spatial, generator=generator).to(dtype)
    return Case(soft_label[:, 1:2] if outputs == 1 else soft_label, image, label)


cases = st.builds(
    make_case,
    seed=st.integers(0, 10**6),
    outputs=st.integers(1, 4),
    channels=st.integers(1, 4),
    spatial=st.lists(st.integers(1, 6), min_size=2, max_size=3).map(tuple),
    kind=st.sampled_from(["any", "right", "wrong", "undecided", "missed"]),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16]),
)


def check_invariants(case: Case, corrected: torch.Tensor) -> int:
    """What holds after each correction; returns how many pixels are still false."""
    before, after = predicted(case.soft_label) != case.label, predicted(corrected) != case.label
    assert corrected.shape == case.soft_label.shape
    assert corrected.dtype == case.soft_label.dtype
    right = (~before).expand_as(corrected)
    assert torch.equal(corrected[right], case.soft_label[right])  # to the last bit
    assert not (after & ~before).any()
    assert ((corrected >= 0) & (corrected <= 1)).all()
    if corrected.shape[1] > 1:
        total = corrected.double().sum(1)
        assert (total - 1).abs().max() <= 4 * max(torch.finfo(corrected.dtype).eps, 1e-7)  # drawn in single precision
    return int(after.sum())
