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

"""Building a network without moving the random state that the student is initialised from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def isolated_rng() -> Iterator[None]:
    """
    Leave torch's random state as it was found. A teacher or an adapter that is built inside does not change the
    initial weights of a student that is built afterwards, so that runs with and without distillation start alike.

    Example::

        >>> import torch
        >>> state = torch.get_rng_state()
        >>> with isolated_rng():
        ...     layer = torch.nn.Linear(4, 4)
        >>> torch.equal(state, torch.get_rng_state())
        True
    """
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    with torch.random.fork_rng(devices=devices):
        yield
