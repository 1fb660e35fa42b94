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

"""
The private attributes of torch, ignite and MONAI that monai_kd reads. They have no public form.
``tests/test_private_attributes.py`` looks whether the installed releases have each.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.distributed
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

__all__ = [
    "TorchDispatchMode",
    "best_checkpoint",
    "cache_item",
    "checkpoints_of",
    "compiled_inside",
    "handlers_of",
    "is_compiled_module",
    "last_checkpoint",
    "metadata_of",
    "numpy_scalar",
    "process_function",
    "rank_store",
    "trainers_iteration",
    "tree_leaves",
    "unfiltered",
    "version_of",
]

# ignite


def handlers_of(engine: Any, event: Any) -> list[tuple]:
    """The list of an event's handlers, (function, args, kwargs) each, in the order of their calls."""
    return engine._event_handlers[event]


def unfiltered(handler: Any) -> Any:
    """The handler inside one that ignite wrapped for an event with a filter, as ``EPOCH_STARTED(once=1)``."""
    return handler._parent() if hasattr(handler, "_parent") else handler


def process_function(engine: Any) -> Any:
    """What an engine calls in each iteration."""
    return engine._process_function


# MONAI


def trainers_iteration(engine: Any) -> Any:
    """The iteration of a MONAI trainer, which fires its events; None of another engine."""
    return getattr(engine, "_iteration", None)


def best_checkpoint(saver: Any) -> Any:
    """Ignite's checkpoint of the key metric in a ``CheckpointSaver``."""
    return saver._key_metric_checkpoint


def last_checkpoint(saver: Any) -> Any:
    """Ignite's checkpoint of the end in a ``CheckpointSaver``; None where it writes none."""
    return saver._final_checkpoint


def checkpoints_of(saver: Any) -> list[Any]:
    """Ignite's checkpoints in a ``CheckpointSaver``: of the end, the key metric and the interval."""
    found = [saver._final_checkpoint, saver._key_metric_checkpoint, saver._interval_checkpoint]
    return [checkpoint for checkpoint in found if checkpoint is not None]


def cache_item(dataset: Any, item: Any) -> None:
    """Let a ``PersistentDataset`` write an item to its cache, without the random transforms."""
    dataset._cachecheck(item)


# torch


def compiled_inside(network: Any) -> Any:
    """The network inside what ``torch.compile`` returned; None of another."""
    return getattr(network, "_orig_mod", None)


def is_compiled_module(module: Any) -> bool:
    """Whether a module is what ``torch.compile`` returned, or was compiled in place."""
    if hasattr(module, "_orig_mod"):
        return True
    return getattr(module, "_compiled_call_impl", None) is not None


def version_of(tensor: Any) -> int:
    """How often a tensor was changed in place."""
    return tensor._version


def metadata_of(state_dict: Any) -> dict[str, Any] | None:
    """The metadata of what ``network.state_dict()`` gave; None of a plain dictionary."""
    return getattr(state_dict, "_metadata", None)


def rank_store() -> Any:
    """The store of the default process group, which ranks share without a collective call."""
    return torch.distributed.distributed_c10d._get_default_store()


# numpy


def numpy_scalar() -> Any:
    """The function by which a pickle makes a number of numpy."""
    core: Any = np._core if hasattr(np, "_core") else np.core
    return core.multiarray.scalar
