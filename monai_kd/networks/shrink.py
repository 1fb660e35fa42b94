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

"""A narrower network of the same kind, from the arguments of a large one."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from monai.bundle import ConfigParser
from monai.networks import nets
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

LEAST = 4  # channels
TOLERANCE = 0.1  # of the FLOPs that were asked for
LADDERS = (
    tuple(f"efficientnet-b{number}" for number in range(9)),
    tuple(f"resnet{number}" for number in (10, 18, 34, 50, 101, 152, 200)),
)
Arguments = dict[str, Any]
Scale = Callable[[float, int], int]
REMEDY = "describe the student yourself, in a file with its block: `--student student.yaml`"


def shrink(network_block: Mapping[str, Any], factor: float) -> Arguments:
    """
    Make a network of the same kind with fewer channels, to be the student of the one that is described.

    ==========================================  ====================================================================
    network of MONAI                            what is multiplied by the factor
    ==========================================  ====================================================================
    UNet, AttentionUnet                         ``channels``
    BasicUNet, BasicUNetPlusPlus                ``features``
    SegResNet, SegResNetDS, SegResNetVAE        ``init_filters``
    DynUNet                                     ``filters``
    FlexibleUNet                                ``decoder_channels``; the backbone becomes a smaller one of its family
    SwinUNETR                                   ``feature_size``, by 12
    UNETR                                       ``feature_size``, ``mlp_dim`` and ``hidden_size``, by ``num_heads``
    HighResNet                                  ``n_features`` of ``layer_params``
    ==========================================  ====================================================================

    No number of channels falls below 4, and a group normalization keeps its groups.

    Args:
        network_block: the ``_target_`` block of the network, as in a MONAI bundle, without references. A default that
            it leaves out is filled in where it is a width.
        factor: of the widths, above 0 and below 1. Parameters and FLOPs fall by about its square.

    Returns:
        the block of the student.

    Raises:
        ValueError: when the factor is out of range, and for a network without a rule, as VNet and DiNTS.

    Example::

        >>> unet = {"_target_": "UNet", "spatial_dims": 2, "in_channels": 1, "out_channels": 2}
        >>> shrink(unet | {"channels": [32, 64, 128], "strides": [2, 2]}, 0.25)["channels"]
        [8, 16, 32]
    """
    if isinstance(factor, bool) or not isinstance(factor, (int, float)) or not 0 < factor < 1:
        raise ValueError(f"`factor` must be above 0 and below 1, but got {factor!r}.")
    block = deepcopy(dict(network_block))
    name = str(block.get("_target_", "")).rpartition(".")[2]
    kind = next((known for known in RULES if known.lower() == name.lower()), None)
    if kind is None:
        raise ValueError(f"`network_block` must be {', '.join(RULES)}, but got {name}{_why(name)}; {REMEDY}.")
    signature = inspect.signature(getattr(nets, kind)).parameters
    defaults = {key: value.default for key, value in signature.items() if value.default is not inspect.Parameter.empty}
    given = {key: value for key, value in block.items() if not key.startswith("_")}
    groups = _groups(defaults | given)

    def scale(width: float, divisor: int = 1) -> int:
        unit = max(divisor, groups)
        least = -(-LEAST // unit) * unit
        return min(int(width), max(least, unit * round(width * factor / unit)))

    return block | RULES[kind](defaults | given, scale, factor)


def shrink_to_flops(network_block: Mapping[str, Any], share: float, input_shape: Sequence[int]) -> Arguments:
    """
    Make a network of the same kind (:py:func:`shrink`) whose forward pass needs a share of the FLOPs.

    Args:
        network_block: as for :py:func:`shrink`.
        share: of the FLOPs of the network that is described, above 0 and below 1.
        input_shape: (B, C, *spatial) that both are counted for.

    Returns:
        the block of the student, within 10 % of the FLOPs that are asked for.

    Raises:
        ValueError: when the share is out of range, the network has no rule, or no widths come so near.
    """
    if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share < 1:
        raise ValueError(f"`flops` must be above 0 and below 1 (100 %), but got {share!r}.")
    goal = share * flops_of(build(network_block), input_shape)
    low, high = 0.0, 1.0
    counted: dict[str, tuple[float, Arguments]] = {}
    for _ in range(12):
        middle = (low + high) / 2
        block = shrink(network_block, middle)
        key = repr(block)
        if key not in counted:
            counted[key] = (flops_of(build(block), input_shape), block)
        if counted[key][0] > goal:
            high = middle
        else:
            low = middle
    flops, block = min(counted.values(), key=lambda pair: abs(pair[0] - goal))
    if abs(flops - goal) > TOLERANCE * goal:
        nearest = flops / goal * share
        raise ValueError(
            f"`flops` must be a share that the widths allow within 10 %, but got {share:.2%}; the nearest is "
            f"{nearest:.2%}. Ask for that, or {REMEDY}."
        )
    return block


def flops_of(network: nn.Module, input_shape: Sequence[int]) -> float:
    """
    Count the floating point operations of one forward pass in eval mode, a multiply-add as two. Nothing is computed
    but shapes.

    Args:
        network: stays as it is.
        input_shape: (B, C, *spatial).
    """
    shapes = deepcopy(network).eval().to("meta")
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        shapes(torch.zeros(tuple(input_shape), device="meta"))
    return float(counter.get_total_flops())


def build(network_block: Mapping[str, Any]) -> nn.Module:
    """
    Build the network of a ``_target_`` block without references.

    Raises:
        ValueError: when the block does not give a module.
    """
    network = ConfigParser({"network": deepcopy(dict(network_block))}).get_parsed_content("network")
    if not isinstance(network, nn.Module):
        raise ValueError(f"`network_block` must give a module, but got {type(network).__name__}.")
    return network


def _groups(arguments: Mapping[str, Any]) -> int:
    """Into how many groups a normalization divides the channels."""
    for key in ("norm", "norm_name"):
        norm = arguments.get(key)
        if isinstance(norm, (list, tuple)) and len(norm) == 2 and isinstance(norm[1], Mapping):
            return int(norm[1].get("num_groups", 1))
    return 1


def _why(name: str) -> str:
    reasons = {"dints": "whose widths belong to the architecture that was searched", "vnet": "which has fixed widths"}
    return f", {reasons[name.lower()]}" if name.lower() in reasons else ""


def _channels(arguments: Arguments, scale: Scale, factor: float) -> Arguments:
    return {"channels": [scale(width, 1) for width in arguments["channels"]]}


def _features(arguments: Arguments, scale: Scale, factor: float) -> Arguments:
    return {"features": [scale(width, 2) for width in arguments["features"]]}  # halved where maps are enlarged


def _init_filters(arguments: Arguments, scale: Scale, factor: float) -> Arguments:
    return {"init_filters": scale(arguments["init_filters"], 1)}


def _filters(arguments: Arguments, scale: Scale, factor: float) -> Arguments:
    filters = arguments.get("filters")
    if filters is None:  # as DynUNet chooses them
        most = 320 if arguments["spatial_dims"] == 3 else 512
        filters = [min(2 ** (5 + level), most) for level in range(len(arguments["strides"]))]
    return {"filters": [scale(width, 1) for width in filters]}


def _backbone(arguments: Arguments, scale: Scale, factor: float) -> Arguments:
    changed = {"decoder_channels": [scale(width, 1) for width in arguments["decoder_channels"]]}
    backbone = str(arguments["backbone"])
    ladder = next((ladder for ladder in LADDERS if backbone in ladder), ())
    if not ladder:
        raise ValueError(f"`backbone` must be one of {', '.join(sum(LADDERS, ()))}, but got {backbone!r}; {REMEDY}.")
    smaller = ladder[: ladder.index(backbone)]
    place = int(len(smaller) * max(0.0, 2 * factor - 1))  # the smallest up to a factor of 1/2
    return changed | {"backbone": smaller[place] if smaller else backbone}


def _swin(arguments: Arguments, scale: Scale, factor: float) -> Arguments:
    return {"feature_size": scale(arguments["feature_size"], 12)}


def _unetr(arguments: Arguments, scale: Scale, factor: float) -> Arguments:
    return {
        "feature_size": scale(arguments["feature_size"], 1),
        "hidden_size": scale(arguments["hidden_size"], arguments["num_heads"]),
        "mlp_dim": scale(arguments["mlp_dim"], 1),
    }


def _layer_params(arguments: Arguments, scale: Scale, factor: float) -> Arguments:
    layers = deepcopy(list(arguments["layer_params"]))
    for layer in layers:
        if "n_features" in layer:
            layer["n_features"] = scale(layer["n_features"], 1)
    return {"layer_params": layers}


RULES: dict[str, Callable[[Arguments, Scale, float], Arguments]] = {
    "UNet": _channels,
    "AttentionUnet": _channels,
    "BasicUNet": _features,
    "BasicUNetPlusPlus": _features,
    "SegResNet": _init_filters,
    "SegResNetDS": _init_filters,
    "SegResNetVAE": _init_filters,
    "DynUNet": _filters,
    "FlexibleUNet": _backbone,
    "SwinUNETR": _swin,
    "UNETR": _unetr,
    "HighResNet": _layer_params,
}
