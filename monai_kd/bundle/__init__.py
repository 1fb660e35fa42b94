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

from monai_kd.bundle.best_checkpoint_saver import BestCheckpointSaver
from monai_kd.bundle.bundle_network import bundle_network
from monai_kd.bundle.chosen import chosen
from monai_kd.bundle.kd_workflow import KDWorkflow
from monai_kd.bundle.latest_checkpoint import latest_checkpoint
from monai_kd.bundle.locate import locate_bundle, shipped_bundles
from monai_kd.bundle.log_run import log_run
from monai_kd.bundle.prepare_console import prepare_console
from monai_kd.bundle.staged_workflow import StagedWorkflow
from monai_kd.bundle.trained_weights import trained_weights

__all__ = [
    "BestCheckpointSaver",
    "KDWorkflow",
    "StagedWorkflow",
    "bundle_network",
    "chosen",
    "latest_checkpoint",
    "locate_bundle",
    "log_run",
    "prepare_console",
    "shipped_bundles",
    "trained_weights",
]
