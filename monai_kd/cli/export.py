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

"""The verb ``export`` of the command line."""

from __future__ import annotations

import math
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser
from torch import Tensor, nn

from monai_kd.bundle.check_overrides import check_overrides
from monai_kd.bundle.export_formats import (
    FORMATS,
    KEY,
    to_onnx,
    to_openvino,
    to_openvino_int8,
    to_tensorrt,
    to_torchscript,
    why_not,
)
from monai_kd.bundle.export_metadata import export_metadata
from monai_kd.bundle.locate import locate_bundle
from monai_kd.data.write_aside import remove_left, write_aside
from monai_kd.networks.load_network import NETWORK_IDS
from monai_kd.networks.load_weights import load_weights
from monai_kd.report.table import Cell, Table

CALIBRATION = 300  # inputs that the ranges of int8 are found on, of which one image gives 16 at most
PER_IMAGE = 16


def export(
    bundle: str,
    formats: str = "torchscript",
    output_dir: str = "",
    checkpoint: str = "",
    config: str = "inference",
    shape: tuple[int, ...] = (),
    classes: str = "",
    override: dict[str, Any] | None = None,
    overwrite: bool = False,
) -> str:
    """
    Export the student of a bundle to a file that runs without monai_kd, and compare it with the network.

    The file holds the network of ``configs/inference`` alone, which is the student: no teacher, adapter or optimizer,
    and says itself what is to be done before and after it (:py:func:`monai_kd.bundle.export_metadata.export_metadata`).
    ``docs/deploy/run_exported.py`` runs it on frames and videos.

    Args:
        bundle: folder of the bundle, or the name of one that ships with monai_kd.
        formats: with commas between them: torchscript (.ts), onnx (.onnx), openvino (.xml and .bin), openvino_int8,
            tensorrt (.ts) and tensorrt_fp16; or ``all`` that can be written here.
        output_dir: where the files are written, named after the checkpoint; beside the checkpoint by default.
        checkpoint: the weights; ``ckpt_path`` of the configuration by default, models/model.pt in most bundles.
        config: the configuration in configs/, or several with commas between them: ``inference,inference_3d``.
        shape: of the input, batch first: ``1,3,352,352``; from the configuration by default.
        classes: names of the channels of logits, with commas between them, where they are not those of the metadata.
        override: entries of the configuration by id: ``"{'num_classes': 3, 'dataset_dir': 'frames'}"``. The images of
            ``dataset_dir`` are those that openvino_int8 is calibrated with.
        overwrite: whether files that are there are replaced.

    Returns:
        a table of the files, as text.

    Raises:
        FileNotFoundError: when there is no such bundle, configuration or checkpoint.
        FileExistsError: when a file is there, unless ``overwrite``.
        ValueError: for an unknown format, one that cannot be written here, weights of another network, an input that
            does not suit it, or a file that gives other results than the network. Nothing is written then.

    Example::

        >>> from monai_kd.cli.export import export
        >>> export("no_such_bundle")
        Traceback (most recent call last):
        FileNotFoundError: `bundle` must be a folder with configs/ or the name of a shipped bundle, ...
    """
    folder = locate_bundle(bundle)
    chosen, reasons = _choose(formats)
    parser, files = _read(folder, config, dict(override or {}))
    weights = _checkpoint(folder, parser, checkpoint)
    if "ckpt_path" in parser:
        parser["ckpt_path"] = str(weights)  # settings that come from the weights come from these
    target = Path(output_dir) if output_dir else weights.parent
    outputs = {name: target / f"{weights.stem}{FORMATS[name].suffix}" for name in chosen}
    existing = [str(part) for path in outputs.values() for part in _parts(path) if part.exists()]
    if existing and not overwrite:
        raise FileExistsError(f"`output_dir` must not hold {', '.join(existing)} yet; replace with --overwrite.")
    student = _Student(parser, files, weights, tuple(shape), [name for name in classes.split(",") if name])
    found = _write(student, outputs, reasons if formats == "all" else None)
    rows: list[list[Cell]] = []
    for name, (difference, remark) in found.items():
        size = sum(part.stat().st_size for part in _parts(outputs[name])) / 1e6
        rows.append([name, str(outputs[name]), size, difference, remark])
    rows += [[name, "-", float("nan"), float("nan"), f"left out: {reason}"] for name, reason in reasons.items()]
    note = (
        f"{student.name} for input of {'x'.join(map(str, student.shape))}, any batch; difference: the largest one to "
        "the network in float32 on noise, one value in 1000 aside, relative to its largest value where that is above 1."
    )
    columns = {"format": "", "file": "", "MB": ".2f", "difference": ".1e", "remark": ""}
    return Table("Export", columns, rows, note).to_text()


def _write(student: _Student, outputs: dict[str, Path], reasons: dict[str, str] | None) -> dict[str, tuple[float, str]]:
    """Write the formats; where `reasons` are gathered, those that fail are left out."""
    found: dict[str, tuple[float, str]] = {}
    remove_left(next(iter(outputs.values())).parent)
    with ExitStack() as stack:  # the files are replaced at its end, when all are right
        student.scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name, path in outputs.items():
            aside = stack.enter_context(write_aside(path))
            try:
                found[name] = student.write(name, aside)
            except (OSError, ValueError) as error:
                if reasons is None:
                    raise
                reasons[name] = str(error)
                for part in _parts(aside):
                    part.unlink(missing_ok=True)
    return found


def _parts(path: Path) -> list[Path]:
    """The files of one format: OpenVINO has two."""
    return [path, *([path.with_suffix(".bin")] if path.suffix == ".xml" else [])]


def _choose(formats: str) -> tuple[list[str], dict[str, str]]:
    """The formats to write, and why others of `all` are left out."""
    if formats == "all":
        reasons = {name: why_not(name) for name in FORMATS}
        return [name for name in FORMATS if not reasons[name]], {name: why for name, why in reasons.items() if why}
    names = [name.strip() for name in formats.split(",")]
    for name in names:
        if name not in FORMATS:
            nearest = get_close_matches(name, FORMATS, n=1, cutoff=0.4)
            hint = f" (did you mean {nearest[0]}?)" if nearest else ""
            raise ValueError(f"`formats` must be of {', '.join(FORMATS)} or all, but got {name!r}{hint}.")
        if why_not(name):
            raise ValueError(f"`formats` must be ones that can be written here, but got {name}, which {why_not(name)}.")
    return list(dict.fromkeys(names)), {}


def _read(folder: Path, config: str, override: dict[str, Any]) -> tuple[ConfigParser, list[str]]:
    """Configuration and metadata of a bundle with overrides, and the files that it was read from."""
    files = []
    for name in config.split(","):
        places = [folder / "configs" / f"{name.strip()}{suffix}" for suffix in ("", ".json", ".yaml", ".yml")]
        file = next((place for place in places if place.is_file()), None)
        if file is None:
            there = sorted(path.name for path in (folder / "configs").glob("inference*"))
            raise FileNotFoundError(
                f"`config` must be a configuration for inference in {folder / 'configs'}, but got {name!r}; "
                f"there is {', '.join(there) or 'none'}."
            )
        files.append(str(file))
    override = check_overrides(files, override)
    parser = ConfigParser()
    parser.read_config(files)
    meta = folder / "configs" / "metadata.json"
    parser.read_meta(str(meta) if meta.is_file() else {})
    parser.update({"bundle_root": str(folder), **override})
    return parser, files


def _checkpoint(folder: Path, parser: ConfigParser, checkpoint: str) -> Path:
    own = parser.get_parsed_content("ckpt_path") if "ckpt_path" in parser else folder / "models" / "model.pt"
    path = Path(checkpoint or own)
    if not path.is_file():
        raise FileNotFoundError(
            f"`checkpoint` must be a file with the weights of the student, but got {path}, which is not there; "
            "train the student first, or name the file with --checkpoint."
        )
    return path


class _Student:
    """The network to export with its weights, and what is known of it."""

    scratch: Path

    def __init__(
        self, parser: ConfigParser, files: list[str], weights: Path, shape: tuple[int, ...], classes: list[str]
    ) -> None:
        self.parser, self.files = parser, files
        self.network = _network(parser)
        self.name = type(self.network).__name__
        load_weights(self.network, weights)
        self.block = export_metadata(parser, self.network, classes or None)
        self.shape = _shape(self.block, shape, parser)
        if shape:
            self.block |= {key: list(self.shape[1:]) for key in ("size", "patch_size") if self.block[key]}
        self.block |= {"input_shape": list(self.shape), "precision": "float32"}
        self._check_output(bool(classes))

    def _check_output(self, named: bool) -> None:
        try:
            with torch.no_grad():
                logits = self.network(torch.zeros(1, *self.shape))
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"`shape` must suit {self.name}, but got {(1, *self.shape)}: {error}") from error
        if not isinstance(logits, Tensor):
            kind = type(logits).__name__
            raise ValueError(f"{self.name} must return one tensor of logits in eval mode, but got {kind}.")
        if logits.shape[1] != self.block["out_channels"]:
            remedy = "" if named else "; add --classes with a name for each channel"
            raise ValueError(
                f"`classes` must be {logits.shape[1]}, a name for each channel of {self.name}, but got "
                f"{', '.join(self.block['classes'])}{remedy}."
            )

    def write(self, name: str, path: Path) -> tuple[float, str]:
        """Write one format; returns the difference to the network and a remark."""
        meta = dict(self.parser.get("_meta_") or {})
        if name == "torchscript":
            config = ConfigParser.load_config_files(self.files)
            return to_torchscript(self.network, self.shape, path, meta | {KEY: self.block}, config), ""
        if name.startswith("tensorrt"):
            half = name.endswith("fp16")
            block = self.block | {"precision": "float16" if half else "float32"}
            to_tensorrt(self.network, self.shape, path, meta | {KEY: block}, self.files, half)
            return float("nan"), "for this GPU, batches of 1 to 8; compared by MONAI"
        onnx_file, difference = self.onnx
        if name == "onnx":
            shutil.copyfile(onnx_file, path)
            return difference, "not compared: needs onnxruntime" if math.isnan(difference) else ""
        if name == "openvino":
            return to_openvino(self.network, onnx_file, self.shape, path, self.block), ""
        inputs = list(calibration_inputs(self.parser, self.block["out_channels"]))
        kept = to_openvino_int8(self.network, onnx_file, inputs, path, self.block)
        return float("nan"), f"{kept:.2%} of the pixels of {len(inputs)} inputs keep their class"

    @cached_property
    def onnx(self) -> tuple[Path, float]:
        """The ONNX file that others are made from, and how much it differs."""
        path = self.scratch / "onnx" / "student.onnx"
        path.parent.mkdir()
        return path, to_onnx(self.network, self.shape, path, self.block)


def _network(parser: ConfigParser) -> nn.Module:
    identifier = next((name for name in NETWORK_IDS if name in parser), None)
    network = parser.get_parsed_content(identifier) if identifier else None
    if not isinstance(network, nn.Module) and callable(network):  # `_mode_: callable`
        network = network()
    if not isinstance(network, nn.Module):
        raise ValueError(f"`config` must define the network as {' or '.join(NETWORK_IDS)}, but got {network}.")
    return network.cpu().eval()


def _shape(block: dict[str, Any], shape: tuple[int, ...], parser: ConfigParser) -> tuple[int, ...]:
    """(C, *spatial) of one image, as the network gets it."""
    if shape:
        if len(shape) < 3:
            raise ValueError(f"`shape` must be (batch, channel, *spatial), but got {shape}.")
        return tuple(shape[1:])
    declared = parser.get("_meta_::network_data_format::inputs::image::spatial_shape")
    for size in (block["patch_size"], block["size"], block["crop"], declared):
        if size and all(isinstance(side, int) and side > 0 for side in size):
            return (block["in_channels"], *size)
    raise ValueError(
        f"`shape` must be given where the configuration leaves it open, but got spatial_shape {declared}; add --shape "
        f"1,{block['in_channels']},..."
    )


def calibration_inputs(parser: ConfigParser, out_channels: int) -> Iterator[Tensor]:
    r"""
    Gather what the network of a bundle sees of real images: its inferer cuts the images of its data loader, and some
    windows of each are drawn, 300 in all.

    Args:
        parser: the bundle's configuration for inference, with ``dataloader`` and ``inferer``.
        out_channels: of the network.

    Yields:
        (1, C, \*spatial).

    Raises:
        FileNotFoundError, ValueError: when the bundle has no data loader, or that no images.
    """
    if "dataloader" not in parser:
        raise ValueError("`config` must have a `dataloader` to calibrate int8 with, but got none.")
    loader = parser.get_parsed_content("dataloader")
    inferer = parser.get_parsed_content("inferer") if "inferer" in parser else None
    generator = torch.Generator().manual_seed(0)
    count = 0
    for batch in loader:
        seen: list[Tensor] = []

        def record(image: Tensor, seen: list[Tensor] = seen) -> Tensor:
            image = torch.as_tensor(image.as_tensor() if hasattr(image, "as_tensor") else image)
            seen.extend(image.float().split(1))
            return image.new_zeros(len(image), out_channels, *image.shape[2:])

        inferer(batch["image"], record) if inferer else record(batch["image"])
        for index in torch.randperm(len(seen), generator=generator)[: min(PER_IMAGE, CALIBRATION - count)].tolist():
            yield seen[index].contiguous()
            count += 1
        if count == CALIBRATION:
            return
    if count == 0:
        raise ValueError("`dataset_dir` must hold images to calibrate int8 with, but got none; name it in --override.")
