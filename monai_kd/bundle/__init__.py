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
    from monai_kd.bundle.as_trained import as_trained
    from monai_kd.bundle.at_most import at_most
    from monai_kd.bundle.attach_writers import attach_writers
    from monai_kd.bundle.best_checkpoint_saver import BestCheckpointSaver
    from monai_kd.bundle.bundle_network import bundle_network
    from monai_kd.bundle.chosen import chosen
    from monai_kd.bundle.cosine_decay import cosine_decay
    from monai_kd.bundle.ends_epoch import ends_epoch
    from monai_kd.bundle.hidden import hidden
    from monai_kd.bundle.in_folder import in_folder
    from monai_kd.bundle.is_installed import is_installed
    from monai_kd.bundle.is_terminal import is_terminal
    from monai_kd.bundle.joined import joined
    from monai_kd.bundle.kd_workflow import KDWorkflow
    from monai_kd.bundle.latest_checkpoint import latest_checkpoint
    from monai_kd.bundle.live_or_stored_teacher import live_or_stored_teacher
    from monai_kd.bundle.locate import locate_bundle, shipped_bundles
    from monai_kd.bundle.log_run import log_run
    from monai_kd.bundle.moved_keys import moved_keys
    from monai_kd.bundle.network_of import network_of
    from monai_kd.bundle.on_first_rank import on_first_rank
    from monai_kd.bundle.on_gpu import on_gpu
    from monai_kd.bundle.prepare_console import prepare_console
    from monai_kd.bundle.present import present
    from monai_kd.bundle.resume_saver import ResumeSaver
    from monai_kd.bundle.run_folder import run_folder
    from monai_kd.bundle.soft_label_key import soft_label_key
    from monai_kd.bundle.staged_workflow import StagedWorkflow
    from monai_kd.bundle.trained_teachers import trained_teachers
    from monai_kd.bundle.trained_weights import trained_weights
    from monai_kd.bundle.weighted_sum_loss import WeightedSumLoss

MODULES = {
    "BestCheckpointSaver": "best_checkpoint_saver",
    "KDWorkflow": "kd_workflow",
    "ResumeSaver": "resume_saver",
    "StagedWorkflow": "staged_workflow",
    "as_trained": "as_trained",
    "WeightedSumLoss": "weighted_sum_loss",
    "at_most": "at_most",
    "attach_writers": "attach_writers",
    "bundle_network": "bundle_network",
    "chosen": "chosen",
    "cosine_decay": "cosine_decay",
    "ends_epoch": "ends_epoch",
    "hidden": "hidden",
    "in_folder": "in_folder",
    "is_installed": "is_installed",
    "is_terminal": "is_terminal",
    "joined": "joined",
    "latest_checkpoint": "latest_checkpoint",
    "live_or_stored_teacher": "live_or_stored_teacher",
    "locate_bundle": "locate",
    "log_run": "log_run",
    "moved_keys": "moved_keys",
    "network_of": "network_of",
    "on_first_rank": "on_first_rank",
    "on_gpu": "on_gpu",
    "prepare_console": "prepare_console",
    "present": "present",
    "run_folder": "run_folder",
    "shipped_bundles": "locate",
    "soft_label_key": "soft_label_key",
    "trained_teachers": "trained_teachers",
    "trained_weights": "trained_weights",
}
__all__ = [
    "BestCheckpointSaver",
    "KDWorkflow",
    "ResumeSaver",
    "StagedWorkflow",
    "WeightedSumLoss",
    "as_trained",
    "at_most",
    "attach_writers",
    "bundle_network",
    "chosen",
    "cosine_decay",
    "ends_epoch",
    "hidden",
    "in_folder",
    "is_installed",
    "is_terminal",
    "joined",
    "latest_checkpoint",
    "live_or_stored_teacher",
    "locate_bundle",
    "log_run",
    "moved_keys",
    "network_of",
    "on_first_rank",
    "on_gpu",
    "prepare_console",
    "present",
    "run_folder",
    "shipped_bundles",
    "soft_label_key",
    "trained_teachers",
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
