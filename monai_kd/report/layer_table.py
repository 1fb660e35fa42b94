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

"""The layers of a network, with what comes out of each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from monai_kd._private_attributes import tree_leaves
from monai_kd.report._probe import probe, probe_input
from monai_kd.report.table import Table


def layer_table(network: nn.Module, input_shape: Sequence[int], depth: int | None = None) -> Table:
    r"""
    List the layers of a network with output shape and parameters, to choose what a distillation term looks at.

    Layers come in the order in which they finish, so that neighbours in depth are neighbours in the table; those that
    did not run in this pass come last, and cannot be distilled.

    Args:
        network: the network; it is run once in eval mode without gradient.
        input_shape: shape of the input, (B, C, \*spatial).
        depth: how many parts the dotted name of a layer has at most; None lists all.

    Raises:
        ValueError: when the shape is none, the network does not take it, or `depth` is below 1.

    Example::

        >>> import torch
        >>> from monai_kd.report import layer_table
        >>> layer_table(torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3)), (1, 1, 8, 8)).rows
        [['0', 'Conv2d', '1x2x6x6', 20]]
    """
    if depth is not None and depth < 1:
        raise ValueError(f"`depth` must be at least 1 or None, but got {depth}.")
    layers = {n: m for n, m in network.named_modules() if n and (depth is None or n.count(".") < depth)}
    shapes: dict[str, str] = {}
    hooks = [module.register_forward_hook(_recorder(shapes, name)) for name, module in layers.items()]
    try:
        probe(network, probe_input(network, input_shape))
    finally:
        for hook in hooks:
            hook.remove()
    order = [*shapes, *(name for name in layers if name not in shapes)]
    rows = [
        [name, type(layer).__name__, shapes.get(name, "not run"), sum(p.numel() for p in layer.parameters())]
        for name, layer in ((name, layers[name]) for name in order)
    ]
    columns = {"layer": "", "type": "", "output": "", "parameters": ","}
    return Table(f"{type(network).__name__}, input {'x'.join(map(str, input_shape))}", columns, rows)


def _recorder(shapes: dict[str, str], name: str) -> Callable[..., None]:
    """A hook that keeps the shape of a layer's first output."""

    def record(module: nn.Module, inputs: Any, output: Any) -> None:
        tensors = [leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]
        shapes.setdefault(name, ", ".join("x".join(map(str, tensor.shape)) for tensor in tensors) or "no tensor")

    return record
