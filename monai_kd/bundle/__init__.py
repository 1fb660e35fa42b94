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

"""What configurations and ``python -m monai_kd`` need. A module is imported when one of its names is asked for."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from monai_kd.bundle.best_checkpoint_saver import BestCheckpointSaver
    from monai_kd.bundle.bundle_network import bundle_network
    from monai_kd.bundle.chosen import chosen
    from monai_kd.bundle.kd_workflow import KDWorkflow
    from monai_kd.bundle.latest_checkpoint import latest_checkpoint
    from monai_kd.bundle.locate import locate_bundle, shipped_bundles
    from monai_kd.bundle.log_run import log_run
    from monai_kd.bundle.prepare_console import prepare_console
    from monai_kd.bundle.present import present
    from monai_kd.bundle.resume_saver import ResumeSaver
    from monai_kd.bundle.staged_workflow import StagedWorkflow
    from monai_kd.bundle.trained_weights import trained_weights

MODULES = {
    "BestCheckpointSaver": "best_checkpoint_saver",
    "KDWorkflow": "kd_workflow",
    "ResumeSaver": "resume_saver",
    "StagedWorkflow": "staged_workflow",
    "bundle_network": "bundle_network",
    "chosen": "chosen",
    "latest_checkpoint": "latest_checkpoint",
    "locate_bundle": "locate",
    "log_run": "log_run",
    "prepare_console": "prepare_console",
    "present": "present",
    "shipped_bundles": "locate",
    "trained_weights": "trained_weights",
}
__all__ = [
    "BestCheckpointSaver",
    "KDWorkflow",
    "ResumeSaver",
    "StagedWorkflow",
    "bundle_network",
    "chosen",
    "latest_checkpoint",
    "locate_bundle",
    "log_run",
    "prepare_console",
    "present",
    "shipped_bundles",
    "trained_weights",
]


def __getattr__(name: str) -> Any:
    if name not in MODULES:
        raise AttributeError(f"module 'monai_kd.bundle' has no attribute {name!r}")
    return getattr(import_module(f"monai_kd.bundle.{MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *MODULES})


class _Package(ModuleType):
    """Keeps the function ``prepare_console`` where Python would put the module of the same name once it is imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in MODULES or not isinstance(value, ModuleType):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
