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

"""The costs of several networks side by side."""

from __future__ import annotations

from collections.abc import Mapping

from monai_kd.report.network_cost import NetworkCost
from monai_kd.report.table import Cell, Table


def cost_table(costs: Mapping[str, NetworkCost], title: str = "Cost") -> Table:
    """
    Put the costs of networks side by side.

    Args:
        costs: what :py:func:`network_cost` measured, under the name of each network.
        title: title of the table.

    Raises:
        ValueError: without a network.

    Example::

        >>> import torch
        >>> from monai_kd.report import cost_table, network_cost
        >>> table = cost_table({"student": network_cost(torch.nn.Conv2d(1, 2, 3), (1, 1, 8, 8), runs=1)})
        >>> table.rows[0][:3]
        ['student', 20, 20]
    """
    if not costs:
        raise ValueError("`costs` must hold at least one network, but got none.")
    columns = {
        "network": "",
        "parameters": ",",
        "used": ",",
        "GFLOPs": ".3f",
        "ms p50": ".1f",
        "ms p95": ".1f",
        "MB": ".2f",
    }
    rows: list[list[Cell]] = [
        [name, c.parameters, c.used_parameters, c.flops / 1e9, c.latency_p50, c.latency_p95, c.size]
        for name, c in costs.items()
    ]
    inputs = sorted({f"{'x'.join(map(str, c.input_shape))} on {c.device}" for c in costs.values()})
    note = (
        f"One forward pass in eval mode of {'; '.join(inputs)}: parameters that it uses, FLOPs (2 x MAC), median and "
        "95th percentile of its milliseconds; MB of the weights as saved."
    )
    return Table(title, columns, rows, note)
