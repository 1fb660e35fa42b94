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

"""The verb ``cost`` of the command line."""

from __future__ import annotations

from monai_kd.bundle.bundle_network import bundle_network
from monai_kd.bundle.override_value import read_device
from monai_kd.report.cost_table import cost_table
from monai_kd.report.network_cost import network_cost


def cost(
    *bundles: str, shape: tuple[int, ...], networks: str = "network_def", device: str = "cpu", runs: int = 20
) -> str:
    """
    Print parameters, FLOPs, latency and size of the networks of bundles.

    Args:
        bundles: folders of bundles, or names of those that ship with monai_kd.
        shape: shape of the input, batch first: ``1,1,384,384``.
        networks: ids of the networks in the configuration, with commas between them: ``network_def,teacher_def``.
        device: where the latency is measured: ``cpu``, ``cuda``.
        runs: forward passes that are timed.

    Returns:
        the table, as text.

    Raises:
        FileNotFoundError: when there is no such bundle.
        ValueError: without a bundle, for a device that is not there, for a network that the bundle does not have or
            that does not take the shape.

    Example::

        >>> from monai_kd.cli.cost import cost
        >>> cost(shape=(1, 1, 64, 64))
        Traceback (most recent call last):
        ValueError: `bundles` must name at least one bundle, but got none; ...
    """
    if not bundles:
        raise ValueError(
            "`bundles` must name at least one bundle, but got none; python -m monai_kd bundles lists those that ship."
        )
    place = read_device("device", device)
    costs = {
        f"{bundle} {name}": network_cost(bundle_network(bundle, name).to(place), shape, runs)
        for bundle in bundles
        for name in networks.split(",")
    }
    return cost_table(costs).to_text()
