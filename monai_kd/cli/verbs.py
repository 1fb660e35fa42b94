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

"""The verbs of the command line, and where each is."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from typing import Any

PROGRAM = "python -m monai_kd"
VERBS = {
    "demo": ("monai_kd.cli.demo", "train, distil and evaluate on generated CT; a table and an HTML page in minutes"),
    "distill": ("monai_kd.bundle.distil", "make a smaller network of a MONAI bundle, and a bundle of it"),
    "nnunet": ("monai_kd.cli.nnunet", "plans and trainer for a small nnU-Net that a trained one teaches"),
    "layers": ("monai_kd.cli.layers", "list a network's layers with output shapes, to choose what to distil"),
    "export": ("monai_kd.cli.export", "write a bundle's student to TorchScript, ONNX, OpenVINO or TensorRT"),
    "cost": ("monai_kd.cli.cost", "parameters, FLOPs, latency and size of networks"),
    "report": ("monai_kd.cli.report", "compare evaluation folders case by case in one HTML page"),
    "bundles": ("monai_kd.cli.bundles", "list the bundles that ship with monai_kd, or copy one to work on"),
}


class UsageError(Exception):
    """A command line that names no verb, a wrong verb, or arguments that the verb does not take."""


def load_verb(verb: str) -> Callable[..., Any]:
    """The function of a verb; only its module is imported, so that the help stays quick."""
    if verb not in VERBS:
        raise UsageError(
            f"`verb` must be one of {', '.join(VERBS)}, but got {verb!r}{nearest(verb, VERBS)}; see {PROGRAM} --help."
        )
    return getattr(importlib.import_module(VERBS[verb][0]), verb)


def nearest(word: str, known: Iterable[str], prefix: str = "") -> str:
    """The known word that was probably meant, as the end of a sentence."""
    match = get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f" (did you mean {prefix}{match[0]}?)" if match else ""
