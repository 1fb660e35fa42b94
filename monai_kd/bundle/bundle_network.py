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

"""One network of a bundle, for looking at it; training and inference build theirs through MONAI."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from monai_kd.bundle.check_overrides import check_network_overrides
from monai_kd.bundle.locate import locate_bundle
from monai_kd.networks.bundle_config import CONFIGS
from monai_kd.networks.load_network import load_bundle_network


def bundle_network(
    bundle: str | Path, network: str = "network_def", override: Mapping[str, Any] | None = None
) -> nn.Module:
    """
    Build a network that a bundle's configuration defines, without its weights.

    A configuration is code: building from it runs the expressions in it, as ``python -m monai.bundle run`` does.

    Args:
        bundle: folder of the bundle, or the name of one that ships with monai_kd.
        network: id of the network in the configuration: ``network_def`` is the one the bundle is for, ``teacher_def``
            the one it learns from. Sought in ``configs/inference``, then in ``configs/train``.
        override: values of the configuration by id, ``{"teacher_def::backbone": "tiny"}``.

    Raises:
        FileNotFoundError: when there is no such bundle.
        ValueError: when no configuration defines the network, with the ids that end like one; when none has an entry to
            override, or it is of another type.

    Example::

        >>> from monai_kd.bundle import bundle_network
        >>> bundle_network("no_such_bundle")
        Traceback (most recent call last):
        FileNotFoundError: `bundle` must be a folder with configs/ or the name of a shipped bundle, ...
    """
    folder = locate_bundle(bundle)
    if override:
        files = [str(path) for path in (folder / "configs" / name for name in CONFIGS) if path.is_file()]
        override = check_network_overrides(files, override, f"a configuration of {folder.name}")
    return load_bundle_network(folder, (network,), override)
