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

"""What a program has to know to run an exported student: the block of metadata inside the file."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import partial
from typing import Any

from monai.bundle import ConfigParser
from monai.utils import ensure_tuple
from torch import nn

import monai_kd
from monai_kd.transforms.ct_window import CTWindow

# transforms that neither move a voxel nor change its value, beside the reader
NEUTRAL = (
    "EnsureChannelFirst",
    "EnsureType",
    "SelectItems",
    "DeleteItems",
    "CastToType",
    "ToTensor",
    "Identity",
    "CheckSpacing",
)
# what the preprocessing fills, in the order in which a program applies it
PREPROCESSING = ("reader", "orientation", "spacing", "size", "window", "mean", "std", "crop")


def export_metadata(parser: ConfigParser, network: nn.Module, classes: list[str] | None = None) -> dict[str, Any]:
    """
    Describe how a bundle prepares images for its network and what it makes of the logits, in terms that JSON has. It is
    read from ``preprocessing``, ``inferer`` and ``postprocessing`` of the configuration for inference and from
    ``network_data_format`` of the metadata; an entry that the bundle does not have is None.

    ==================  ================================================================================================
    entry               what
    ==================  ================================================================================================
    ``classes``         name of each channel of logits
    ``channels``        name of each channel of the image
    ``reader``          transform that reads the image: "LoadRGB" gives RGB in [0, 1], height before width
    ``orientation``     axis codes that a volume is brought to, "RAS"
    ``spacing``         of voxels in mm that a volume is brought to
    ``size``            that an image is resized to (linearly, corners not aligned), and predictions back
    ``window``          [lower, upper], mapped to [0, 1] and clipped
    ``mean``, ``std``   of each channel: (image - mean) / std
    ``crop``            that an image is cropped or padded to (by 0), around its centre; -1 leaves an axis as it is
    ``patch_size``      of the windows that the network sees of it
    ``overlap``         of neighbouring windows, as a part of their size
    ``blending``        of overlapping windows: "constant" or "gaussian"
    ``slice_axis``      along which a volume is cut into slices for the network; None for a network of volumes
    ``activation``      "sigmoid" or "softmax", before a prediction is brought back; None where classes are compared
    ``inverse``         how a prediction is brought back to the volume: "nearest" (classes) or "linear"
    ``threshold``       of the probability that makes a pixel foreground; None: the most probable class
    ``other``           transforms of ``preprocessing`` and ``postprocessing`` that no entry describes
    ==================  ================================================================================================

    An image is prepared in the order of the table; a transform that comes later or earlier is one of ``other``.
    Disabled transforms and those that change neither "image" nor "pred" or a copy of it are passed over.

    There are also ``monai_kd``, ``bundle``, ``bundle_version``, ``network`` (its class), ``in_channels`` and
    ``out_channels``.

    Args:
        parser: configuration and metadata of the bundle.
        network: its network.
        classes: names of the channels of logits, where they are others than in the metadata.

    Raises:
        ValueError: when the metadata has no ``network_data_format``, or one of another form.

    Example::

        >>> import torch
        >>> data = {"inputs": {"image": {"num_channels": 3}}, "outputs": {"pred": {"num_channels": 1}}}
        >>> resize = {"_target_": "Resized", "keys": "image", "spatial_size": [64, 64], "mode": "bilinear"}
        >>> bundle = {"preprocessing": {"_target_": "Compose", "transforms": [resize]}}
        >>> bundle["_meta_"] = {"network_data_format": data}
        >>> export_metadata(ConfigParser(bundle), torch.nn.Conv2d(3, 1, 1))["size"]
        [64, 64]
    """
    meta = parser.get("_meta_") or {}
    try:
        image = meta["network_data_format"]["inputs"]["image"]
        pred = meta["network_data_format"]["outputs"]["pred"]
        channels, outputs = int(image["num_channels"]), int(pred["num_channels"])
        channel_names, class_names = _names(image, channels), _names(pred, outputs)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"`bundle` must have inputs.image and outputs.pred with num_channels, and channel_def where channels have "
            f"names, in the network_data_format of its configs/metadata.json, but got {type(error).__name__} {error}."
        ) from error
    block: dict[str, Any] = {
        "monai_kd": monai_kd.__version__,
        "bundle": meta.get("name"),
        "bundle_version": meta.get("version"),
        "network": type(network).__name__,
        "in_channels": channels,
        "out_channels": len(classes) if classes else outputs,
        "classes": classes or class_names,
        "channels": channel_names,
        "patch_size": _patch_size(parser),
        **_windows(parser),
    }
    before, unsaid = _preprocessing(parser)
    after, unsaid_after = _postprocessing(parser, block | before)
    return block | before | after | {"other": unsaid + unsaid_after}


def _names(tensor: dict[str, Any], count: int) -> list[str]:
    """The names of channels in their order; those without one are numbered."""
    given = tensor.get("channel_def") or {}
    return [str(given.get(str(number), f"channel {number}")) for number in range(count)]


def _follow(parser: ConfigParser, path: str) -> str:
    """The id that a chain of references ends at."""
    entry = parser.get(path)
    return _follow(parser, entry[1:]) if isinstance(entry, str) and entry.startswith("@") else path


def _transforms(parser: ConfigParser, path: str) -> Iterator[tuple[str, dict[str, str]]]:
    """Name without the ending of dictionary transforms, and the ids of the arguments, of each of a ``Compose``."""
    place = _follow(parser, path)
    entry = parser.get(place) if place in parser else None
    if entry is None:
        return
    if not isinstance(entry, dict) or "_target_" not in entry:
        yield str(entry), {}
        return
    if "_disabled_" in entry and str(parser.get_parsed_content(f"{place}::_disabled_")).strip().lower() == "true":
        return
    name = str(entry["_target_"]).rpartition(".")[2]
    inner = _follow(parser, f"{place}::transforms") if name == "Compose" and "transforms" in entry else place
    if isinstance(parser.get(inner), list):
        for number in range(len(parser.get(inner))):
            yield from _transforms(parser, f"{inner}::{number}")
        return
    base = next((name.removesuffix(end) for end in ("Dict", "D", "d") if name.endswith(end)), name)
    yield base, {key: f"{place}::{key}" for key in entry if not key.startswith("_")}


def _value(parser: ConfigParser, ids: dict[str, str], key: str, default: Any = None) -> Any:
    return parser.get_parsed_content(ids[key]) if key in ids else default


def _named(parser: ConfigParser, ids: dict[str, str], *arguments: str) -> set[Any]:
    return {key for name in arguments if name in ids for key in ensure_tuple(parser.get_parsed_content(ids[name]))}


def _changes(parser: ConfigParser, name: str, ids: dict[str, str], keys: set[str]) -> bool:
    """Whether a transform may change what an item has under one of `keys`."""
    if name == "Lambda" and "keys" not in ids:  # of the whole item
        added = _added(str(parser.get(ids["func"], ""))) if "func" in ids else None
        return added is None or bool(added & keys)
    if "keys" not in ids:
        return True
    return bool(keys & _named(parser, ids, *(() if name == "CopyItems" else ("keys",)), "name", "names"))


def _added(function: str) -> set[Any] | None:
    """The keys that a function ``$lambda item: item | {...}`` sets; None for one of another form."""
    try:
        parsed = ast.parse(function.removeprefix("$").strip(), mode="eval").body
    except SyntaxError:
        return None
    if not isinstance(parsed, ast.Lambda) or not isinstance(parsed.body, ast.BinOp):
        return None
    left, right = parsed.body.left, parsed.body.right
    same = isinstance(left, ast.Name) and [argument.arg for argument in parsed.args.args] == [left.id]
    if not same or not isinstance(parsed.body.op, ast.BitOr) or not isinstance(right, ast.Dict):
        return None
    keys = [key.value if isinstance(key, ast.Constant) else None for key in right.keys]
    return None if None in keys else set(keys)


def _patch_size(parser: ConfigParser) -> list[int] | None:
    if "inferer" not in parser or f"{_follow(parser, 'inferer')}::roi_size" not in parser:
        return None
    size = parser.get_parsed_content(f"{_follow(parser, 'inferer')}::roi_size")
    return [int(side) for side in size] if isinstance(size, (list, tuple)) else None


def _windows(parser: ConfigParser) -> dict[str, Any]:
    """How the windows of the inferer overlap and are blended."""
    place = _follow(parser, "inferer")
    found: dict[str, Any] = {"overlap": 0.25, "blending": "constant", "slice_axis": None}  # MONAI's defaults
    if "inferer" not in parser:
        return found
    if f"{place}::overlap" in parser:
        overlap = parser.get_parsed_content(f"{place}::overlap")
        found["overlap"] = list(overlap) if isinstance(overlap, (list, tuple)) else overlap
    if f"{place}::mode" in parser:
        found["blending"] = str(parser.get_parsed_content(f"{place}::mode"))
    if str(parser.get(f"{place}::_target_")).endswith("SliceInferer"):
        axis = f"{place}::spatial_dim"
        found["slice_axis"] = parser.get_parsed_content(axis) if axis in parser else 0
    return found


def _preprocessing(parser: ConfigParser) -> tuple[dict[str, Any], list[str]]:
    found: dict[str, Any] = dict.fromkeys(PREPROCESSING)
    other = []
    last = -1  # place of what was filled last
    for name, ids in _transforms(parser, "preprocessing"):
        if not _changes(parser, name, ids, {"image"}):
            continue
        step = {} if name in NEUTRAL else _step(parser, name, ids)
        if step is None or any(PREPROCESSING.index(key) <= last for key in step):
            other.append(name)  # unknown, out of order, or a second one of its kind
        elif step:
            found |= step
            last = max(map(PREPROCESSING.index, step))
    return found, other


def _step(parser: ConfigParser, name: str, ids: dict[str, str]) -> dict[str, Any] | None:
    """What a transform of the preprocessing means for the block; None when the block cannot say it."""
    value = partial(_value, parser, ids)

    def numbers(key: str) -> list[float] | None:
        got = value(key)
        return None if got is None else [float(n) for n in (got if isinstance(got, (list, tuple)) else [got])]

    if name.startswith("Load"):
        return {"reader": name}
    if name == "Orientation":
        return {"orientation": value("axcodes")} if value("axcodes") else None
    if name == "Spacing":
        return {"spacing": numbers("pixdim")}
    if name in ("ResizeWithPadOrCrop", "CenterSpatialCrop"):
        return {"crop": [int(side) for side in value("spatial_size", value("roi_size"))]}
    if name == "Resize":
        plain = str(value("mode", "area")) in ("bilinear", "trilinear") and set(ids) <= {"keys", "spatial_size", "mode"}
        return {"size": [int(side) for side in value("spatial_size")]} if plain else None
    if name == "CTWindow":
        window = CTWindow(value("window"), value("level"), value("width"))
        return {"window": [window.lower, window.upper]}
    if name == "ScaleIntensityRange":
        unit = (value("b_min"), value("b_max"), value("clip", False)) == (0, 1, True)
        return {"window": [float(value("a_min")), float(value("a_max"))]} if unit else None
    if name == "NormalizeIntensity":
        fixed = value("subtrahend") is not None and value("divisor") is not None and not value("nonzero", False)
        return {"mean": numbers("subtrahend"), "std": numbers("divisor")} if fixed else None
    return None


def _postprocessing(parser: ConfigParser, block: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    found: dict[str, Any] = {"activation": None, "threshold": None, "inverse": "linear"}
    other = []
    predictions, discrete = {"pred"}, False
    for name, ids in _transforms(parser, "postprocessing"):
        if not _changes(parser, name, ids, predictions):
            if name == "CopyItems" and predictions & _named(parser, ids, "keys"):
                predictions |= _named(parser, ids, "names")  # one of them is saved
            continue
        step = {} if name in NEUTRAL else _last_step(parser, name, ids, block | found, discrete)
        discrete = discrete or name == "AsDiscrete"
        if step is None:
            other.append(name)
        else:
            found |= step
    return found, other


def _is_foreground(function: Any) -> bool:
    """Whether a function takes the channels behind the first."""
    if isinstance(function, dict):
        return str(function.get("_target_", "")).endswith(".foreground_channels")
    return re.fullmatch(r"\$\s*lambda (\w+): \1\[1:\]\s*", str(function)) is not None


def _last_step(
    parser: ConfigParser, name: str, ids: dict[str, str], block: dict[str, Any], discrete: bool
) -> dict[str, Any] | None:
    """What a transform of the postprocessing means for the block; None when the block cannot say it."""
    activation, of_two = block["activation"], block["activation"] == "softmax" and block["out_channels"] == 2
    value = partial(_value, parser, ids)

    if name == "SaveImage":
        return {}
    if name == "Transpose":  # MONAI writes pictures width first
        return {} if list(value("indices")) == [0, 2, 1] else None
    if name == "Invert":
        smooth = not discrete and not any(ensure_tuple(value("nearest_interp", True)))
        if not smooth and block["size"]:
            return None
        return {"inverse": "linear" if smooth else "nearest"}
    if discrete:
        return None
    if name == "Activations":
        chosen = [key for key in ("sigmoid", "softmax") if value(key) is True]
        return {"activation": chosen[0]} if len(chosen) == 1 and activation is None and value("other") is None else None
    if name == "Lambda" and "func" in ids:  # the foreground of two classes
        return {} if of_two and _is_foreground(parser.get(ids["func"])) else None
    if name == "AsDiscrete" and value("to_onehot") is None and value("rounding") is None:
        argmax, threshold = value("argmax", False), value("threshold")
        if argmax is True and threshold is None and activation != "sigmoid":
            return {"threshold": None}
        if argmax is False and isinstance(threshold, (int, float)) and (activation == "sigmoid" or of_two):
            return {"threshold": float(threshold)}
    return None
