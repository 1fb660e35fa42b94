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

"""The state of all random numbers that a training draws in this process."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from monai.transforms import Randomizable


class RandomState:
    """
    Saves and restores what a training draws from: torch, numpy, ``random``, and the transforms of a data set. A
    training that is resumed at the end of an epoch then draws what the undisturbed one would have drawn. Workers of a
    ``DataLoader`` take their seeds from torch, so they are included.

    Args:
        dataset: the data set, whose transforms are searched at any depth.

    Example::

        >>> state = RandomState(None)
        >>> kept = state.state_dict()
        >>> first = torch.rand(1)
        >>> state.load_state_dict(kept)
        >>> bool(torch.rand(1) == first)
        True
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def state_dict(self) -> dict[str, Any]:
        """The state, of tensors, numbers, texts and lists."""
        return {
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "numpy": _of_numpy(np.random.get_state()),
            "python": list(random.getstate()),
            "transforms": [_of_numpy(each.R.get_state()) for each in randomizable(self.dataset)],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """
        Args:
            state: what :py:meth:`state_dict` gave.

        Raises:
            ValueError: when the data set has other transforms.
        """
        transforms = list(randomizable(self.dataset))
        if len(transforms) != len(state["transforms"]):
            raise ValueError(
                f"the data set must have the {len(state['transforms'])} random transforms of the run that is resumed, "
                f"but got {len(transforms)}."
            )
        torch.set_rng_state(state["torch"])
        if torch.cuda.is_available() and state["cuda"]:
            torch.cuda.set_rng_state_all(state["cuda"])
        np.random.set_state(_to_numpy(state["numpy"]))
        version, inner, spare = state["python"]
        random.setstate((version, tuple(inner), spare))
        for each, own in zip(transforms, state["transforms"]):
            each.R.set_state(_to_numpy(own))


def randomizable(thing: Any, seen: set[int] | None = None) -> Iterator[Randomizable]:
    """The random transforms in a data set or transform, each once, in a fixed order."""
    seen = set() if seen is None else seen
    if id(thing) in seen:
        return
    seen.add(id(thing))
    if isinstance(thing, Randomizable):
        yield thing
    inner: list[Any] = list(thing) if isinstance(thing, (list, tuple)) else []
    for name in ("transform", "transforms", "dataset", "data"):
        value = getattr(thing, name, None)
        if name != "data" or not isinstance(value, (list, tuple, torch.Tensor, np.ndarray)):
            inner.append(value)
    for each in inner:
        if each is not None and not isinstance(each, (str, int, float)):
            yield from randomizable(each, seen)


def _of_numpy(state: Any) -> list[Any]:
    name, keys, position, has_gauss, cached = state
    return [name, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached]


def _to_numpy(state: Any) -> tuple[Any, ...]:
    name, keys, position, has_gauss, cached = state
    return name, keys.numpy().astype(np.uint32), position, has_gauss, cached
