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

"""Running a bundle with errors that a person can act on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigWorkflow
from monai.utils import ensure_tuple

from monai_kd.bundle.check_overrides import OPTIONS, TRACKING, check_overrides
from monai_kd.bundle.override_value import expand_home
from monai_kd.bundle.prepare_console import prepare_console


class KDWorkflow(ConfigWorkflow):
    """
    MONAI's bundle workflow that refuses overrides which are unknown or of another type, and writes beside the bundle,
    wherever it is called from.

    ``python -m monai.bundle run_workflow --workflow_name monai_kd.bundle.KDWorkflow --config_file .../train.yaml``

    Args:
        config_file: the configuration, or several, the later over the earlier.
        override: overrides by id; ``bundle_root`` defaults to the folder above ``configs``.
        kwargs: as for :py:class:`monai.bundle.ConfigWorkflow`, which names what it takes beside overrides.

    Raises:
        FileNotFoundError: when a configuration is missing.
        ValueError: when an override is not an entry of the configuration, or its value not of the entry's type.
    """

    checks_overrides = True

    def __init__(self, config_file: str | Sequence[str], **kwargs: Any) -> None:
        prepare_console()
        files = [expand_home(str(path)) for path in ensure_tuple(config_file)]
        if all(Path(path).is_file() for path in files):
            options = (*OPTIONS, *(TRACKING if kwargs.get("tracking") else ()))
            override = {key: value for key, value in kwargs.items() if key not in options}
            kwargs |= check_overrides(files, override)
        kwargs.setdefault("bundle_root", str(Path(files[0]).resolve().parent.parent))
        super().__init__(config_file=files, **kwargs)
