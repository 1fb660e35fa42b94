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

"""Weights that have to be there before a run."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai_kd.networks.check_whole import check_whole
from monai_kd.networks.weights_facts import read_facts

FREE = ("image_size", "patch_size", "field_of_view")  # a network takes other sizes too
logger = logging.getLogger("monai_kd")


def trained_weights(path: str | os.PathLike, remedy: str, settings: Mapping[str, Any] | None = None) -> str:
    """
    Check that weights were trained and are whole, before data is read and networks are built, and that they were
    trained for the settings of this run.

    Args:
        path: file of the weights.
        remedy: what makes them, told where they are missing.
        settings: settings of this run by name, as the image size and the classes. They are compared with those that
            the file holds (:py:func:`~monai_kd.networks.weights_facts.read_facts`), where it holds them.

    Returns:
        the path.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it is damaged, or was trained with another window, other classes and the like. Another size
            of image, patch or field of view is warned of.

    Example, in a bundle's ``CheckpointLoader``::

        load_path: "$monai_kd.bundle.trained_weights(@best_ckpt, 'the same command without evaluate.yaml')"
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"weights must be trained first, but got no file {path}; {remedy} makes it.")
    try:
        check_whole(path)
    except ValueError as error:
        raise ValueError(
            f"weights must be whole, but got {path}, which is damaged: {error}; copy the file again, or {remedy} "
            "makes it."
        ) from error
    if settings:
        _compare(path, settings)
    return str(path)


def _compare(path: str | os.PathLike, settings: Mapping[str, Any]) -> None:
    """The settings of a run with those of its weights."""
    trained = read_facts(path)
    for name, value in settings.items():
        if name not in trained or _plain(value) == _plain(trained[name]):
            continue
        if name not in FREE:
            raise ValueError(
                f"`{name}` must be {trained[name]}, with which {path} was trained, but got {value}; leave --{name} "
                "out, or name other weights."
            )
        logger.warning(
            f"`{name}` is {value}, but {path} was trained with {trained[name]}: results may be worse. Leave --{name} "
            "out to use that of the training."
        )


def _plain(value: Any) -> Any:
    """Lists for tuples, at all depths."""
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return {key: _plain(each) for key, each in value.items()} if isinstance(value, Mapping) else value
