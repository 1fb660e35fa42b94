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

"""The verb ``layers`` of the command line."""

from __future__ import annotations

from monai_kd.bundle.bundle_network import bundle_network
from monai_kd.report.layer_table import layer_table


def layers(bundle: str, shape: tuple[int, ...], network: str = "network_def", depth: int = 0) -> str:
    """
    List the layers of a bundle's network as they run, to choose ``student_layer`` and ``teacher_layer``.

    Args:
        bundle: folder of the bundle, or the name of one that ships with monai_kd.
        shape: shape of the input, batch first: ``1,1,384,384``.
        network: id of the network in the configuration, e.g. ``teacher_def``.
        depth: how many parts a dotted name has at most; 0 lists all.

    Returns:
        the table, as text.

    Raises:
        FileNotFoundError: when there is no such bundle.
        ValueError: when the bundle has no such network, or the network does not take the shape.

    Example::

        >>> from monai_kd.cli.layers import layers
        >>> layers("no_such_bundle", (1, 1, 64, 64))
        Traceback (most recent call last):
        FileNotFoundError: `bundle` must be a folder with configs/ or the name of a shipped bundle, ...
    """
    return layer_table(bundle_network(bundle, network), shape, depth or None).to_text()
