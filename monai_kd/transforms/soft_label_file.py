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

"""The file of a stored soft label: its name, its entries, and where its values come from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.utils import convert_to_numpy, optional_import

from monai_kd.data.differences import differences
from monai_kd.data.write_aside import write_aside
from monai_kd.losses._channels import probabilities

LOGITS = "logits"  # the one tensor, (C, *spatial) in half precision
WEIGHTS_KEY, CORRECTIONS, CLASSES = "weights_key", "corrections", "classes"  # of the metadata


def sample_key(image: Any, label: Any) -> str:
    """
    What a stored soft label belongs to: a fingerprint of an image and its label, so that another file, another label
    and another preprocessing all give another key.

    Args:
        image: the preprocessed image.
        label: its label.

    Returns:
        32 hexadecimal digits.

    Example::

        >>> sample_key(torch.zeros(1, 2, 2), torch.zeros(1, 2, 2)) == sample_key(torch.zeros(1, 4), torch.zeros(1, 4))
        False
    """
    digest = hashlib.blake2b(digest_size=16)
    for value in (image, label):
        if isinstance(value, torch.Tensor) and value.dtype == torch.bfloat16:  # which NumPy does not know
            value = value.float()
        array = np.ascontiguousarray(convert_to_numpy(value))
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def soft_label_path(folder: Path, image: Any, label: Any) -> Path:
    """The file of an image (channels, *spatial) and its label (1, *spatial)."""
    return folder / f"{sample_key(image, label)}.safetensors"


def write_soft_label(path: Path, logits: torch.Tensor, origin: Mapping[str, str]) -> None:
    """
    Args:
        path: see :py:func:`soft_label_path`.
        logits: (C, *spatial), in half precision.
        origin: the weights key, the corrections and the number of classes.

    Raises:
        OSError: when it cannot be written; an earlier file stays.
    """
    save_file = optional_import("safetensors.torch", name="save_file")[0]
    with write_aside(path) as aside:
        save_file({LOGITS: logits.cpu()}, str(aside), dict(origin))


def stored_origin(path: Path) -> dict[str, str]:
    """The origin that a file holds; empty where it is broken, something else or missing."""
    if not path.is_file():
        return {}
    safe_open, broken = (optional_import("safetensors", name=name)[0] for name in ("safe_open", "SafetensorError"))
    try:
        with safe_open(str(path), framework="pt") as file:
            origin = file.metadata() or {}
            return origin if WEIGHTS_KEY in origin and LOGITS in file.keys() else {}  # noqa: SIM118
    except broken:
        return {}


def read_soft_label(path: Path) -> torch.Tensor:
    """The probabilities (C, *spatial) of a file, in single precision."""
    with optional_import("safetensors", name="safe_open")[0](str(path), framework="pt") as file:
        return probabilities(file.get_tensor(LOGITS).float(), dim=0)


def key_differences(stored: str, wanted: str) -> str:
    """What differs in two weights keys: by name where they hold names, as those of the bundles do."""
    try:
        return differences(json.loads(stored), json.loads(wanted))
    except (ValueError, TypeError, AttributeError):  # plain texts, as hexadecimal digits
        return f"{wanted} and {stored}"
