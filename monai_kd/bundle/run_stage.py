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

"""Running one stage of a bundle from Python."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai_kd.bundle.kd_workflow import KDWorkflow


def run_stage(bundle: str | Path, configs: str | Sequence[str], **override: Any) -> KDWorkflow:
    """
    Run a stage of a bundle, as ``python -m monai.bundle run --config_file ...`` does in a process of its own.

    Args:
        bundle: the folder that holds ``configs/``; what is written goes below it.
        configs: names of configurations in ``configs/``, the later over the earlier.
        override: overrides by id, as ``max_epochs=1`` or ``**{"train::trainer::epoch_length": 2}``.

    Returns:
        the workflow that ran.

    Raises:
        FileNotFoundError: when a configuration is missing.
        ValueError: when an override is not an entry of the configuration.
    """
    names = [configs] if isinstance(configs, str) else configs
    workflow = KDWorkflow([str(Path(bundle) / "configs" / name) for name in names], **override)
    workflow.initialize()
    workflow.run()
    workflow.finalize()
    return workflow
