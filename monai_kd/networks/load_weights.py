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

"""Reading weights from a file into a network, never running code from it."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from os import PathLike
from pathlib import Path

import torch
from monai.utils import OptionalImportError, optional_import
from torch import nn

from monai_kd.networks.check_whole import check_whole

WEIGHT_KEYS = ("model", "network", "net", "state_dict", "model_state_dict", "student", "teacher")
PREFIXES = ("module.", "_orig_mod.")


def load_weights(network: nn.Module, path: str | PathLike, key: str | None = None, likely: str | None = None) -> None:
    """
    Load weights from a file into a network, all of them or none.

    Args:
        network: the module that receives them.
        path: a ``.safetensors`` file, or one that ``torch.save`` wrote: a state dict, or a dictionary that holds one,
            as MONAI's ``CheckpointSaver`` writes. Read with ``weights_only=True``.
        key: the entry that holds the state dict; found by its usual names where None.
        likely: an entry that is taken where it is there and ``key`` is None.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when the file needs code to be run, is damaged, has no weights, weights of another architecture, or
            NaN or infinity among them.

    Example::

        >>> import tempfile, torch
        >>> network = torch.nn.Linear(2, 2)
        >>> with tempfile.NamedTemporaryFile(suffix=".pt") as file:
        ...     torch.save({"model": network.state_dict()}, file.name)
        ...     load_weights(torch.nn.Linear(2, 2), file.name)
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"`checkpoint` must be an existing file, but got {path}; train the teacher first.")
    weights = strip_prefixes(_select(_read(path), key, likely, path), network)
    _compare(network, weights, path)
    network.load_state_dict(weights)


def _read(path: Path) -> Mapping:
    try:
        if path.suffix == ".safetensors":
            return optional_import("safetensors.torch", name="load_file")[0](str(path))
        check_whole(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except OptionalImportError:
        raise
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"`checkpoint` must hold weights alone, but got {path}, which needs code to be run or is damaged; "
            "save it again with `torch.save(network.state_dict(), path)`."
        ) from error
    except Exception as error:  # a damaged file fails in a dozen ways
        reason = str(error) or type(error).__name__
        raise ValueError(f"`checkpoint` must hold weights, but got {path}, which is damaged: {reason}") from error
    if not isinstance(content, Mapping):
        raise ValueError(f"`checkpoint` must hold a state dict, but got {type(content).__name__} in {path}.")
    return content


def is_state_dict(content: object) -> bool:
    """Whether it is a dictionary of tensors by name, with at least one."""
    if not isinstance(content, Mapping) or not content:
        return False
    return all(isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in content.items())


def _select(content: Mapping, key: str | None, likely: str | None, path: Path) -> Mapping:
    if key is None and is_state_dict(content):
        return content
    if key is None and is_state_dict(content.get(likely)):
        return content[likely]
    keys = [name for name in WEIGHT_KEYS if is_state_dict(content.get(name))] if key is None else [key]
    if len(keys) != 1 or not is_state_dict(content.get(keys[0])):
        raise ValueError(
            f"`checkpoint_key` must name the entry of {path} that holds the weights, but got {key}; "
            f"it has {sorted(map(str, content))}."
        )
    return content[keys[0]]


def strip_prefixes(weights: Mapping, network: nn.Module) -> dict[str, torch.Tensor]:
    """Names without what DDP and `torch.compile` put before them, where the network has no such names itself."""
    weights, own = dict(weights), network.state_dict().keys()
    for prefix in PREFIXES * 2:  # either may be outside the other
        if own.isdisjoint(weights) and all(name.startswith(prefix) for name in weights):
            weights = {name[len(prefix) :]: value for name, value in weights.items()}
    return weights


def unfit_values(network: nn.Module, weights: Mapping[str, torch.Tensor]) -> list[str]:
    """The entries whose values are integer, complex or not finite where those of the network are real and finite."""
    own = network.state_dict()
    both = [(name, old, weights[name]) for name, old in own.items() if name in weights and old.is_floating_point()]
    wrong = [f"{name} of {new.dtype} for {old.dtype}" for name, old, new in both if not new.is_floating_point()]
    return wrong + [
        f"{name} with NaN or infinity"
        for name, old, new in both  # a mask of attention may hold -inf
        if new.is_floating_point() and not new.isfinite().all() and old.isfinite().all()
    ]


def _compare(network: nn.Module, weights: Mapping[str, torch.Tensor], path: Path) -> None:
    own = network.state_dict()
    wrong = [f"{name} missing" for name in own if name not in weights]
    wrong += [f"{name} unexpected" for name in weights if name not in own]
    wrong += [
        f"{name} of shape {tuple(weights[name].shape)} for {tuple(value.shape)}"
        for name, value in own.items()
        if name in weights and weights[name].shape != value.shape
    ]
    wrong += unfit_values(network, weights)
    if wrong:
        raise ValueError(
            f"`checkpoint` must hold the weights of {type(network).__name__} ({len(own)} entries), but got {path} with "
            f"{len(wrong)} that differ: {'; '.join(wrong[:5])}{'; ...' if len(wrong) > 5 else ''}. "
            "Is it of another architecture, or another number of classes?"
        )
