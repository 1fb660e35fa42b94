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

"""What a MONAI bundle that nobody here wrote trains: its trainer, its network, its loss and its weights."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from pydoc import locate
from typing import Any

import monai.engines
import monai.handlers
import torch
from monai.bundle import ConfigParser
from monai.engines import SupervisedTrainer, Trainer

from monai_kd.bundle.check_overrides import check_overrides
from monai_kd.networks.bundle_config import CONFIGS, components, entry, inference_loader
from monai_kd.networks.bundle_errors import bundle_errors
from monai_kd.networks.bundle_importable import bundle_importable

Config = Mapping[str, Any]
REFERENCE = re.compile(r"@(\w+(?:(?:::|#)\w+)*)")


@dataclass
class BundleParts:
    """
    What :py:func:`bundle_parts` found.

    Args:
        folder: the bundle.
        files: the configurations of the training, the later over the earlier.
        override: values over them.
        config: their content.
        trainer: id of the trainer, as ``train::trainer``.
        evaluator: id of the evaluator that validates, or None.
        network: id of the network's block, as ``network_def``.
        run: id of what starts the training, as ``run``.
        block: the arguments of the network, without references.
        file_block: the network's block as the files have it, with references.
        own_block: the arguments without ``override``; None where they cannot be read so.
        activation: ``"softmax"`` or ``"sigmoid"``, what the loss takes of the logits.
        weights: file of the trained weights.
        loaders: ids of loaders of weights among the handlers of the trainer.
        input_shape: (B, C, *spatial) of the metadata, or None.
    """

    folder: Path
    files: list[Path]
    override: dict[str, Any]
    config: dict[str, Any]
    trainer: str
    evaluator: str | None
    network: str
    run: str
    block: dict[str, Any]
    file_block: dict[str, Any]
    own_block: dict[str, Any] | None
    activation: str
    weights: Path
    loaders: list[str] = field(default_factory=list)
    input_shape: tuple[int, ...] | None = None


def bundle_parts(
    folder: Path,
    config: str = "train",
    override: Config | None = None,
    trainer_id: str = "",
    activation: str = "",
    checkpoint: str = "",
) -> BundleParts:
    """
    Find in the configurations of a bundle what a distillation needs. Nothing is written, and no data is read.

    Args:
        folder: the bundle.
        config: its configurations for training, with commas between them.
        override: values over them by id.
        trainer_id: id of the trainer, where there are several.
        activation: of the logits, where the loss does not tell it.
        checkpoint: file of the trained weights, where the configuration for inference does not name it.

    Raises:
        FileNotFoundError: when a configuration or the weights are missing.
        ValueError: when something is not found, or cannot be distilled, with the reason.
    """
    files = [_file(folder, name.strip()) for name in config.split(",")]
    try:
        checked = check_overrides([str(path) for path in files], dict(override or {}))
    except KeyError as error:
        raise ValueError(
            f"`config` must be whole configurations, the later over the earlier, but got {config!r}, which changes "
            f"what is not there ({error.args[0]}); name its base before it: `--config train,{config}`."
        ) from error
    parser = _parser(files, folder)
    parser.update(checked)
    parser["bundle_root"] = str(folder)
    content = parser.get()
    trainer = _trainer(content, folder, trainer_id)
    block = entry(content, trainer)
    network = _network(content, block.get("network"), trainer)
    arguments = _arguments(parser, network, folder)
    reached = dict(reachable(content, block.get("train_handlers")))
    evaluators = [key for key, value in reached.items() if _is_kind(value, monai.engines.Evaluator)]
    return BundleParts(
        folder=folder,
        files=files,
        override=checked,
        config=content,
        trainer=trainer,
        evaluator=evaluators[0] if evaluators else None,
        network=network,
        run=_run(content, trainer),
        block=arguments,
        file_block=entry(_parser(files, folder).get(), network) or {},
        own_block=_own_arguments(files, network, folder) if checked else arguments,
        activation=activation or _activation(content, block, arguments, folder),
        weights=_weights(folder, checkpoint),
        loaders=[key for key, value in reached.items() if _is_kind(value, monai.handlers.CheckpointLoader)],
        input_shape=_input_shape(folder),
    )


def _parser(files: list[Path], folder: Path) -> ConfigParser:
    """The content of configurations, the later over the earlier."""
    parser = ConfigParser()
    parser.read_config([str(path) for path in files])
    parser["bundle_root"] = str(folder)
    return parser


def reachable(config: Config, start: Any, seen: set[str] | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """The ``_target_`` blocks that an entry refers to, directly or through others."""
    seen = set() if seen is None else seen
    for identifier in _references(start):
        if identifier in seen:
            continue
        seen.add(identifier)
        target = entry(config, identifier)
        yield from components(target, identifier)
        yield from reachable(config, target, seen)


def _references(value: Any) -> list[str]:
    """The ids that a value refers to, at any depth."""
    if isinstance(value, str):
        return [match.replace("#", "::") for match in REFERENCE.findall(value)]
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, (list, tuple)) else ()
    return [identifier for each in inner for identifier in _references(each)]


def _file(folder: Path, name: str) -> Path:
    places = [folder / "configs" / f"{name}{suffix}" for suffix in ("", ".json", ".yaml", ".yml")]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        configs = folder / "configs"
        there = ", ".join(sorted(path.name for path in configs.glob("*train*"))) or "none"
        raise FileNotFoundError(
            f"`config` must be a configuration for training in {configs}, but got {name!r}; there is {there}."
        )
    return found


def _class(block: Config, folder: Path | None = None) -> Any:
    """The class of a ``_target_`` block, or None."""
    target = str(block.get("_target_", ""))
    for package in (monai.engines, monai.handlers):
        if hasattr(package, target):
            return getattr(package, target)
    if "." not in target:
        return None
    if folder is None:
        return locate(target) if target.startswith("monai.") else None
    with bundle_importable(folder):
        return locate(target)


def _is_kind(block: Config, kind: type) -> bool:
    found = _class(block)
    return isinstance(found, type) and issubclass(found, kind)


def _trainer(config: Config, folder: Path, trainer_id: str) -> str:
    """The id of the one trainer that can be distilled."""
    found = {}
    for key, block in components(config):
        kind = _class(block, folder) if "rainer" in str(block["_target_"]) else None
        if isinstance(kind, type) and issubclass(kind, Trainer):
            found[key] = kind
    if trainer_id:
        trainer_id = trainer_id.replace("#", "::")
        if trainer_id not in found:
            there = ", ".join(found) or "none"
            raise ValueError(f"`trainer_id` must be the id of a trainer, but got {trainer_id!r}; there is {there}.")
        found = {trainer_id: found[trainer_id]}
    if len(found) != 1:
        there = ", ".join(found) or "none"
        remedy = "; name it with --trainer_id" if found else ""
        raise ValueError(f"`bundle` must have one MONAI trainer in its configuration, but got {there}{remedy}.")
    key, kind = next(iter(found.items()))
    if not issubclass(kind, SupervisedTrainer):
        raise ValueError(
            f"`{key}` must be a SupervisedTrainer, whose step the distillation joins, but got {kind.__name__}: "
            "detection, generative and own training steps cannot be distilled by this command."
        )
    if entry(config, key).get("iteration_update"):
        raise ValueError(
            f"`{key}` must have MONAI's training step, but got an `iteration_update` of its own, which the "
            "distillation cannot join."
        )
    return key


def _network(config: Config, start: Any, trainer: str) -> str:
    """The id of the block that builds the trainer's network."""
    wrappers = ("DistributedDataParallel", "DataParallel")
    for identifier in _references(start):
        target = entry(config, identifier)
        wrapped = isinstance(target, Mapping) and str(target.get("_target_", "")).endswith(wrappers)
        if isinstance(target, Mapping) and "_target_" in target and not wrapped:
            return identifier
        try:
            return _network(config, target, trainer)
        except ValueError:
            continue
    raise ValueError(f"`network` of `{trainer}` must lead to a `_target_` block, but got {start!r}.")


def _arguments(parser: ConfigParser, network: str, folder: Path) -> dict[str, Any]:
    """The block of the network without references."""
    with bundle_errors(folder, network), bundle_importable(folder):
        resolved = parser.get_parsed_content(network, instantiate=False)
    return dict(getattr(resolved, "config", resolved))


def _own_arguments(files: list[Path], network: str, folder: Path) -> dict[str, Any] | None:
    """The block of the network as the files have it."""
    try:
        return _arguments(_parser(files, folder), network, folder)
    except (ImportError, ValueError):
        return None


def _run(config: Config, trainer: str) -> str:
    """The id of the expressions that run the trainer."""
    call = re.compile(rf"@{trainer}\.run\(".replace("::", "(?:::|#)"))
    for key, value in config.items():
        texts = value if isinstance(value, list) else [value]
        if any(isinstance(text, str) and call.search(text) for text in texts):
            return str(key)
    raise ValueError(f"`bundle` must have an entry that runs `{trainer}`, as `run`, but got none.")


def _activation(config: Config, trainer: Config, network: Config, folder: Path) -> str:
    """What the loss, or else the postprocessing, takes of the logits."""
    inference = [folder / "configs" / name for name in CONFIGS if name.startswith("inference")]
    places = [[block for _, block in reachable(config, trainer.get("loss_function"))]]
    for file in inference:
        if file.is_file():
            content = ConfigParser.load_config_file(str(file))
            places.append([block for _, block in components(content) if "Activations" in str(block["_target_"])])
    for blocks in places:
        for block in blocks:
            if block.get("sigmoid") is True or str(block["_target_"]).endswith("BCEWithLogitsLoss"):
                return "sigmoid"
            if block.get("softmax") is True or str(block["_target_"]).endswith("CrossEntropyLoss"):
                return "softmax"
    if network.get("out_channels") == 1:
        return "softmax"  # of one channel it is a sigmoid
    raise ValueError(
        "`activation` must be known, but neither the loss nor the inference of the bundle says `softmax` or "
        "`sigmoid`; give --activation softmax (classes exclude each other) or sigmoid (they overlap)."
    )


def _weights(folder: Path, checkpoint: str) -> Path:
    """The file that the bundle's own inference loads."""
    path = Path(checkpoint) if checkpoint else folder / "models" / "model.pt"
    if not checkpoint:
        found = inference_loader(folder)
        path = found[0] if found else path
    if not path.is_file():
        raise FileNotFoundError(
            f"`checkpoint` must be the file with the weights of the bundle, but got {path}, which is not there; "
            "download or train them, or name the file with --checkpoint."
        )
    return path


def _input_shape(folder: Path) -> tuple[int, ...] | None:
    """What the metadata says of the image."""
    file = folder / "configs" / "metadata.json"
    if not file.is_file():
        return None
    formats = ConfigParser.load_config_file(str(file)).get("network_data_format", {})
    image = entry(formats, "inputs::image") or {}
    sizes = image.get("spatial_shape") or []
    if not sizes or not all(isinstance(size, int) and size > 0 for size in sizes):
        return None
    return torch.Size([1, int(image.get("num_channels", 1)), *sizes])
