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

from collections.abc import Iterator
from typing import Any

from monai.bundle import ConfigParser
from torch import nn

import monai_kd
from monai_kd.transforms.ct_window import CTWindow

# transforms that neither move a voxel nor change its value, beside the reader
NEUTRAL = ("EnsureChannelFirst", "EnsureType", "CopyItems", "SelectItems", "CastToType", "ToTensor", "Identity")


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
    ``crop``            that an image is cropped or padded to, around its centre; -1 leaves an axis as it is
    ``patch_size``      of the windows that the network sees of it
    ``window``          [lower, upper], mapped to [0, 1] and clipped
    ``mean``, ``std``   of each channel: (image - mean) / std, after the window
    ``activation``      "sigmoid" or "softmax", before a prediction is brought back; None where classes are compared
    ``threshold``       of the probability that makes a pixel foreground; None: the most probable class
    ``other``           transforms of ``preprocessing`` that no entry describes
    ==================  ================================================================================================

    and ``monai_kd``, ``bundle``, ``bundle_version``, ``network`` (its class), ``in_channels``, ``out_channels``.

    Args:
        parser: configuration and metadata of the bundle.
        network: its network.
        classes: names of the channels of logits, where they are others than in the metadata.

    Raises:
        ValueError: when the metadata has no ``network_data_format``.

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
    except KeyError as error:
        raise ValueError(
            f"`bundle` must have inputs.image and outputs.pred with num_channels in the network_data_format of its "
            f"configs/metadata.json, but got none of {error}."
        ) from error
    block: dict[str, Any] = {
        "monai_kd": monai_kd.__version__,
        "bundle": meta.get("name"),
        "bundle_version": meta.get("version"),
        "network": type(network).__name__,
        "in_channels": channels,
        "out_channels": len(classes) if classes else outputs,
        "classes": classes or _names(pred, outputs),
        "channels": _names(image, channels),
        "patch_size": _patch_size(parser),
    }
    return block | _preprocessing(parser) | _postprocessing(parser)


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
    path = f"{_follow(parser, path)}::transforms"
    entries = parser.get(_follow(parser, path)) if path in parser else None
    if not isinstance(entries, list):
        return
    for number in range(len(entries)):
        place = _follow(parser, f"{_follow(parser, path)}::{number}")
        entry = parser.get(place)
        if not isinstance(entry, dict) or "_target_" not in entry:
            yield str(entry), {}
            continue
        name = str(entry["_target_"]).rpartition(".")[2]
        base = next((name.removesuffix(end) for end in ("Dict", "D", "d") if name.endswith(end)), name)
        yield base, {key: f"{place}::{key}" for key in entry if not key.startswith("_")}


def _patch_size(parser: ConfigParser) -> list[int] | None:
    if "inferer" not in parser or f"{_follow(parser, 'inferer')}::roi_size" not in parser:
        return None
    size = parser.get_parsed_content(f"{_follow(parser, 'inferer')}::roi_size")
    return [int(side) for side in size] if isinstance(size, (list, tuple)) else None


def _preprocessing(parser: ConfigParser) -> dict[str, Any]:
    entries = ("reader", "orientation", "spacing", "size", "crop", "window", "mean", "std")
    found: dict[str, Any] = {**dict.fromkeys(entries), "other": []}
    if "preprocessing" not in parser:
        return found
    for name, ids in _transforms(parser, "preprocessing"):
        step = {} if name in NEUTRAL else _step(parser, name, ids)
        if step is None or any(found[key] is not None for key in step):
            found["other"].append(name)  # unknown, or a second one of its kind
        else:
            found |= step
    return found


def _step(parser: ConfigParser, name: str, ids: dict[str, str]) -> dict[str, Any] | None:
    """What a transform of the preprocessing means for the block; None when the block cannot say it."""

    def value(key: str, default: Any = None) -> Any:
        return parser.get_parsed_content(ids[key]) if key in ids else default

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
        return {"crop": [int(side) for side in value("spatial_size")]}
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


def _postprocessing(parser: ConfigParser) -> dict[str, Any]:
    found: dict[str, Any] = {"activation": None, "threshold": None}
    for name, ids in _transforms(parser, "postprocessing") if "postprocessing" in parser else ():
        if name == "Activations":
            chosen = (key for key in ("sigmoid", "softmax") if key in ids and parser.get_parsed_content(ids[key]))
            found["activation"] = next(chosen, None)
        if name == "AsDiscrete" and "threshold" in ids:
            threshold = parser.get_parsed_content(ids["threshold"])
            found["threshold"] = None if threshold is None else float(threshold)
    return found
