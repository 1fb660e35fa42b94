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

"""Building the network of a MONAI bundle or a TorchScript file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from monai.bundle import ConfigParser
from torch import nn

from monai_kd.networks.bundle_config import CONFIGS
from monai_kd.networks.bundle_errors import bundle_errors
from monai_kd.networks.bundle_importable import bundle_importable
from monai_kd.networks.check_whole import check_whole

NETWORK_IDS = ("network_def", "network", "net")


def load_bundle_network(
    bundle: Path, identifiers: Sequence[str] = NETWORK_IDS, override: Mapping[str, Any] | None = None
) -> nn.Module:
    """
    Build the network that a MONAI bundle describes, without its weights.

    A configuration is code: building from it runs the expressions in it, as ``python -m monai.bundle run`` does.

    Args:
        bundle: the folder that holds ``configs/``.
        identifiers: ids of the network in the configuration, the first that is there is taken.
        override: values of the configuration by id, where it has the entry.

    Returns:
        the module of ``network_def`` in ``configs/inference.json`` (or ``.yaml``, then train).

    Raises:
        FileNotFoundError: when the folder has no such configuration.
        ImportError: when a package is missing.
        ValueError: when no configuration has the network, with those that there are, or when it cannot be built.
    """
    found = [bundle / "configs" / name for name in CONFIGS if (bundle / "configs" / name).is_file()]
    if not found:
        raise FileNotFoundError(
            f"`network` must be a MONAI bundle with configs/inference.json or .yaml, but got the folder {bundle}."
        )
    known: set[str] = set()
    for path in found:
        parser = ConfigParser()
        parser.read_config(str(path))
        parser.update({key: value for key, value in (override or {}).items() if key.split("::")[0] in parser})
        parser["bundle_root"] = str(bundle)
        for identifier in identifiers:
            if identifier in parser:
                with bundle_errors(bundle, identifier), bundle_importable(bundle), _loaded_to_cpu():
                    network = parser.get_parsed_content(identifier)
                if not isinstance(network, nn.Module) and callable(network):  # `_mode_: callable`
                    network = network()
                return network.cpu() if isinstance(network, nn.Module) else network
        known.update(name for name in parser.get() if str(name).endswith(("_def", "network", "net")))
    asked = " or ".join(map(repr, identifiers))
    raise ValueError(
        f"`network` must be an id in the configuration of {bundle.name}, but got {asked}; "
        f"there is {', '.join(sorted(known)) or 'none'}."
    )


@contextmanager
def _loaded_to_cpu() -> Iterator[None]:
    """A configuration that loads to a GPU is read on a machine without one."""
    original = torch.load

    def load(file: Any, map_location: Any = None, *args: Any, **kwargs: Any) -> Any:
        return original(file, "cpu", *args, **kwargs)

    with nullcontext() if torch.cuda.is_available() else patch.object(torch, "load", load):
        yield


def load_torchscript(path: Path) -> nn.Module:
    """
    Load a TorchScript file.

    Args:
        path: a file that :py:func:`torch.jit.save` wrote, as ``python -m monai.bundle ckpt_export`` does.

    Raises:
        FileNotFoundError: when there is no such file or folder.
        ValueError: when the file is not TorchScript.
    """
    if not path.is_file():
        raise FileNotFoundError(f"`network` must be an existing bundle folder or TorchScript file, but got {path}.")
    try:
        check_whole(path)
    except ValueError as error:
        raise ValueError(
            f"`network` must be a whole file, but got {path}, which is damaged: {error}; copy it again."
        ) from error
    try:
        return torch.jit.load(str(path), map_location="cpu")
    except RuntimeError as error:
        raise ValueError(
            f"`network` must be a TorchScript file, but got {path}; if it holds weights, pass the network as "
            "`network` and the file as `checkpoint`."
        ) from error
