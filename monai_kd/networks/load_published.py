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

"""Reading weights that others published under names of their own."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from monai_kd.networks.check_whole import check_whole
from monai_kd.networks.load_weights import is_state_dict, strip_prefixes, unfit_values

Weights = dict[str, torch.Tensor]


def load_published(
    network: nn.Module,
    path: str | os.PathLike[str],
    rename: Callable[[Weights], Weights],
    argument: str,
    content: str,
) -> None:
    """
    Load a published file into a network whose entries are named otherwise; each must be there and fit.

    Args:
        network: the module that receives the weights.
        path: a local file that ``torch.save`` wrote, read with ``weights_only=True``.
        rename: turns the file's state dict into one with the names of ``network``.
        argument: what the user calls the path, for errors.
        content: what the file must hold, for errors.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when the file is damaged, needs code to be run, holds no state dict, one of another network, or
            values that are not finite or of another kind.

    Example::

        >>> import tempfile, torch
        >>> with tempfile.NamedTemporaryFile(suffix=".pth") as file:
        ...     torch.save({"fc.weight": torch.ones(1, 1)}, file.name)
        ...     rename = lambda weights: {name.removeprefix("fc."): value for name, value in weights.items()}
        ...     load_published(torch.nn.Linear(1, 1, bias=False), file.name, rename, "weights", "one layer")
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"`{argument}` must be a local file with {content}, but got {str(path)!r}; download it first, or pass None."
        )
    try:
        check_whole(path)
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file fails in a dozen ways
        raise ValueError(
            f"`{argument}` must hold weights alone, but {path} is damaged or needs code to be run: "
            f"{shortened(str(error) or type(error).__name__)}"
        ) from error
    if not is_state_dict(weights):
        raise ValueError(f"`{argument}` must hold a state dict, but got a {_kind(weights)} in {path}.")
    try:
        weights = rename(strip_prefixes(weights, network))
        wrong = unfit_values(network, weights)
        if wrong:
            raise RuntimeError("; ".join(wrong))
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise ValueError(f"`{argument}` must hold {content}, but {path} differs. {shortened(str(error))}") from error


def _kind(content: object) -> str:
    if not isinstance(content, dict):
        return type(content).__name__
    return f"dict of {', '.join(map(str, content))[:80] or 'nothing'}"


def shortened(message: str, limit: int = 400) -> str:
    """The beginning of a message that may list every entry."""
    return message if len(message) <= limit else message[:limit] + " ..."


def load_encoder(
    load: Callable[[str | os.PathLike[str]], None], path: str | os.PathLike[str] | None, in_channels: int
) -> None:
    """
    Load an encoder's published weights, where a network is given a file of them.

    Args:
        load: reads the file into the encoder.
        path: what the user gave as ``encoder_weights``; None leaves the encoder as it is.
        in_channels: channels of the network's image.

    Raises:
        ValueError: when there are other channels than 1, which is repeated, or 3.
    """
    if path is None:
        return
    if in_channels not in (1, 3):
        raise ValueError(f"`encoder_weights` needs `in_channels` 1 or 3, but got {in_channels}; pass None.")
    load(path)
