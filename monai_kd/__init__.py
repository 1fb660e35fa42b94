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

"""Knowledge distillation for MONAI segmentation networks.

``import monai_kd`` alone costs nothing: each kind (``monai_kd.losses``, ``monai_kd.handlers``, ...) is imported when it
is first asked for, by ``import monai_kd.losses`` or by ``monai_kd.losses`` in an expression of a bundle.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["__version__", "distil"]
__version__ = "0.1.0"

KINDS = (
    "bundle",
    "cli",
    "corrections",
    "data",
    "handlers",
    "losses",
    "metrics",
    "networks",
    "nnunet",
    "report",
    "transforms",
)


def __getattr__(name: str) -> Any:
    if name in KINDS:
        return import_module(f"monai_kd.{name}")
    if name == "distil":
        return import_module("monai_kd.bundle.distil").distil
    raise AttributeError(f"module 'monai_kd' has no attribute {name!r}")
