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

"""What makes a run another one, so that a checkpoint of it is not gone on with."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any
from zlib import crc32

from ignite.distributed import get_world_size

from monai_kd.bundle.trainer_parts import content, size, teachers, teaching, trained
from monai_kd.data.case_name import case_names
from monai_kd.networks import Teacher
from monai_kd.networks.feature_capture import unwrap
from monai_kd.networks.weights_checksum import weights_checksum

Identity = dict[str, Any]  # text, numbers, booleans and None by the id that a person types

# sections of a configuration that change no weights
SECTIONS = {"_meta_", "_requires_", "imports", "initialize", "run", "finalize", "resume", "stages", "evaluated"}
# entries, wherever they stand, that change no weights or say where things are
ENTRIES = {"bundle_root", "dataset_dir", "output_dir", "log_dir", "ckpt_dir", "cache_dir", "device", "rank", "progress"}
ENTRIES |= {"tensorboard", "num_workers", "cache", "cache_num"}
EPOCHS = {"max_epochs", "decay_epochs"}  # a run may get more of them
EARLIER = {"training data", "transforms", "objective"}  # of the identities of an earlier release


def configuration_identity(config: Mapping[str, Any], epochs: bool = True) -> Identity:
    """
    The leaves of a configuration by their ids, as ``loss::weights::1``, but for paths and for what
    changes no weights. Expressions are compared as they are written.

    Args:
        config: the configuration with its overrides.
        epochs: whether the number of epochs counts.

    Example::

        >>> configuration_identity({"rate": 0.1, "num_workers": 4, "loss": {"weights": [1, 2]}})
        {'rate': 0.1, 'loss::weights::0': 1, 'loss::weights::1': 2}
    """
    entries = {key: value for key, value in config.items() if key not in SECTIONS}
    found = dict(leaf for key, value in entries.items() for leaf in _leaves(value, str(key)))
    return comparable(json.loads(json.dumps(found, default=_as_text)), epochs)


def comparable(identity: Mapping[str, Any], epochs: bool = True) -> Identity:
    """An identity without paths and what changes no weights: one that was stored may hold them."""
    left_out = ENTRIES if epochs else ENTRIES | EPOCHS
    return {
        key: value
        for key, value in identity.items()
        if left_out.isdisjoint(key.split("::")) and key.split("::")[0] not in SECTIONS and not _is_path(value)
    }


def run_identity(trainer: Any, handlers: Sequence[Any], config: Mapping[str, Any] | None = None) -> Identity:
    """
    What a run must have in common with a checkpoint to go on with it: the leaves of its
    configuration, the number of processes, and checksums of the names of the cases and of the
    weights of teachers and assistants.

    Args:
        trainer: a MONAI trainer.
        handlers: its handlers.
        config: the configuration with its overrides. Without one the trainer's own numbers count.
    """
    dataset, found = trainer.data_loader.dataset, list(teachers(handlers))
    sources = [getattr(each, "unlabelled", None) for each in teaching(handlers)]
    unlabelled = [source.describe() for source in sources if source is not None]
    leaves = _of_trainer(trainer, handlers) if config is None else configuration_identity(config, epochs=False)
    return leaves | {
        "training cases": f"{content(dataset)}, checksum {_checksum('|'.join(sorted(case_names(dataset))))}",
        "unlabelled images": "; ".join(unlabelled) or None,
        "weights of the teachers": f"checksum {_weights(found)}" if found else None,
        "processes": get_world_size(),
    }


def is_of_earlier_release(identity: Mapping[str, Any]) -> bool:
    """Whether an identity is one of monai_kd 0.1 before it named the entries of the configuration."""
    return identity.keys() >= EARLIER


def _leaves(entry: Any, path: str) -> Iterator[tuple[str, Any]]:
    parts: Any = None
    if isinstance(entry, Mapping):
        parts = entry.items()
    elif isinstance(entry, (list, tuple)):
        parts = enumerate(entry)
    if not parts:
        yield path, entry
    for key, value in parts or ():
        yield from _leaves(value, f"{path}::{key}")


def _as_text(value: Any) -> str:
    """A value of a configuration that was made in Python."""
    return str(value) if isinstance(value, PurePath) else type(value).__name__


def _is_path(value: Any) -> bool:
    if not isinstance(value, str) or value.startswith(("$", "@", "%")):
        return False
    parts = "/" in value or os.sep in value or value.startswith("~")
    return parts and not re.fullmatch(r"\d+/\d+", value)  # 1/4 is a number


def _of_trainer(trainer: Any, handlers: Sequence[Any]) -> Identity:
    """What is known of a run without a configuration."""
    network, optimizer = trained(trainer)
    summaries = [f"{each.supervised_weight:g} supervised, {each.summary()}" for each in teaching(handlers)]
    return {
        "network": type(unwrap(network)).__name__,
        "parameters": size(network),
        "batch size": trainer.data_loader.batch_size,
        "iterations an epoch": trainer.state.epoch_length,
        "accumulation steps": getattr(trainer, "accumulation_steps", 1),
        "optimizer": type(optimizer).__name__,
        "learning rate": optimizer.defaults.get("lr"),
        "distillation": "; ".join(summaries) or None,
    }


def _checksum(text: str) -> str:
    return f"{crc32(text.encode()):08x}"


def _weights(found: Sequence[Teacher]) -> str:
    checksum = 0
    for teacher in found:
        if teacher.outputs in ("softmax", "sigmoid"):  # the same weights mean something else
            checksum = crc32(teacher.outputs.encode(), checksum)
        checksum = weights_checksum(teacher.network, checksum)
    return f"{checksum:08x}"
