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

"""What a network costs: parameters, FLOPs, latency and size."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from monai.networks.utils import eval_mode
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.flop_counter import FlopCounterMode

from monai_kd._private_attributes import tree_leaves
from monai_kd.report._probe import probe, probe_input


@dataclass(frozen=True)
class NetworkCost:
    """
    The cost of a network for one input, see :py:func:`network_cost`.

    Args:
        parameters: all parameters, as papers count them.
        used_parameters: those that the output depends on in eval mode.
        flops: floating point operations of one forward pass, a multiply-add counted as two; NaN where not known.
        latency_p50: median time of a forward pass in milliseconds.
        latency_p95: the time in milliseconds that 95% of the passes stay below.
        size: parameters and buffers in megabytes (1e6 bytes), as ``model.pt`` holds them.
        input_shape: shape of the input.
        device: where it ran.
    """

    parameters: int
    used_parameters: int
    flops: float
    latency_p50: float
    latency_p95: float
    size: float
    input_shape: tuple[int, ...]
    device: str


def network_cost(network: nn.Module, input_shape: Sequence[int], runs: int = 20, warm_up: int = 3) -> NetworkCost:
    r"""
    Measure what a network costs in use: in eval mode, without gradient, on the device it is on.

    .. math::

        \mathrm{FLOPs} = 2 \, \mathrm{MAC}

    of convolutions, matrix products and attention, as torch counts them and the papers report them (`EMKD`, Table I);
    normalisation, activation and interpolation are not counted. ``used_parameters`` matters because released
    networks hold layers that never run (a bottleneck of ENet, a classifier of MobileNetV2), and because heads for deep
    supervision are not used after training.

    Args:
        network: the network; its training mode, parameters and gradients stay as they are.
        input_shape: shape of the input, (B, C, \*spatial).
        runs: forward passes that are timed, at least 1.
        warm_up: forward passes before them, at least 0.

    Raises:
        ValueError: when the shape is none, or the network does not take it, or `runs` or `warm_up` is too small.

    Example::

        >>> import torch
        >>> from monai_kd.report import network_cost
        >>> network_cost(torch.nn.Conv2d(1, 2, 3, padding=1), (1, 1, 8, 8)).flops  # 2 * (8 * 8 * 2 * 9)
        2304
    """
    if runs < 1 or warm_up < 0:
        raise ValueError(f"`runs` must be at least 1 and `warm_up` at least 0, but got {runs} and {warm_up}.")
    image = probe_input(network, input_shape)
    probe(network, image)
    counter = FlopCounterMode(display=False)
    with eval_mode(network), counter:
        network(image)
    times = _latency(network, image, runs, warm_up)
    return NetworkCost(
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        used_parameters=_used_parameters(network, image),
        flops=counter.get_total_flops(),
        latency_p50=float(np.percentile(times, 50)),
        latency_p95=float(np.percentile(times, 95)),
        size=sum(t.numel() * t.element_size() for t in network.state_dict().values() if isinstance(t, Tensor)) / 1e6,
        input_shape=tuple(image.shape),
        device=str(image.device),
    )


def _used_parameters(network: nn.Module, image: Tensor) -> int:
    """The number of parameters that get a gradient from the output; the network's own gradients are not touched."""
    stand_ins = {name: parameter.detach().requires_grad_() for name, parameter in network.named_parameters()}
    if not stand_ins:
        return 0
    with eval_mode(network), torch.enable_grad():
        output = functional_call(network, stand_ins, (image,))
        total = torch.stack([leaf.float().sum() for leaf in tree_leaves(output) if isinstance(leaf, Tensor)]).sum()
        gradients = torch.autograd.grad(total, list(stand_ins.values()), allow_unused=True)
    return sum(gradient.numel() for gradient in gradients if gradient is not None)


def _latency(network: nn.Module, image: Tensor, runs: int, warm_up: int) -> list[float]:
    """Milliseconds of each timed forward pass."""
    wait = torch.cuda.synchronize if image.is_cuda else lambda: None
    times = []
    with eval_mode(network):
        for _ in range(warm_up + runs):
            wait()
            start = time.perf_counter()
            network(image)
            wait()
            times.append((time.perf_counter() - start) * 1e3)
    return times[warm_up:]
