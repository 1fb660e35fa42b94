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

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser, ConfigWorkflow
from monai.utils import ensure_tuple

from monai_kd.bundle.prepare_console import prepare_console

# what MONAI reads itself, or any configuration may have
OPEN_KEYS = ("_meta_", "_requires_", "imports", "bundle_root", "initialize", "run", "finalize")
# what the workflow takes beside overrides
OPTIONS = (
    "meta_file",
    "logging_file",
    "init_id",
    "run_id",
    "final_id",
    "tracking",
    "workflow_type",
    "properties_path",
)


def check_overrides(config_file: str | Sequence[str], override: dict[str, Any]) -> None:
    """
    Refuse an override of something that the configuration does not have.

    MONAI accepts it without a word, and trains for 60 epochs when told ``--max_epoch 1``.

    Args:
        config_file: the configuration, or several, the later over the earlier.
        override: the overrides by id, ``a::b`` or ``a#b``. An argument of a ``_target_`` may be new.

    Raises:
        ValueError: with the nearest ids.
    """
    where = ", ".join(map(str, ensure_tuple(config_file)))
    parser = ConfigParser()
    parser.read_config(config_file)
    for key in override:
        path = key.lstrip("+").replace("#", "::").split("::")
        known = parser.get()
        for depth, part in enumerate(path if path[0] not in OPEN_KEYS else []):
            if isinstance(known, dict) and part in known:
                known = known[part]
            elif isinstance(known, list) or (isinstance(known, dict) and "_target_" in known):
                break
            else:
                names = list(known) if isinstance(known, dict) else []
                if depth == len(path) - 1:  # a value was meant, and no section as `validate`
                    names = [name for name in names if not _is_section(known[name])]
                nearest = difflib.get_close_matches(part, names, n=3, cutoff=0.5)
                hint = (
                    "; did you mean " + " or ".join(f"`{'::'.join([*path[:depth], name])}`" for name in nearest) + "?"
                )
                raise ValueError(
                    f"`{key}` must be an entry of {where}, but got an unknown one{hint if nearest else '.'}"
                )


def _is_section(entry: Any) -> bool:
    return isinstance(entry, dict) and "_target_" not in entry


class KDWorkflow(ConfigWorkflow):
    """
    MONAI's bundle workflow that refuses unknown overrides and writes beside the bundle, wherever it is called from.

    ``python -m monai.bundle run_workflow --workflow_name monai_kd.bundle.KDWorkflow --config_file .../train.yaml``

    Args:
        config_file: the configuration, or several, the later over the earlier.
        override: overrides by id; ``bundle_root`` defaults to the folder above ``configs``.
        kwargs: as for :py:class:`monai.bundle.ConfigWorkflow`, which names what it takes beside overrides.

    Raises:
        FileNotFoundError: when a configuration is missing.
        ValueError: when an override is not an entry of the configuration.
    """

    def __init__(self, config_file: str | Sequence[str], **kwargs: Any) -> None:
        prepare_console()
        files = [str(path) for path in ensure_tuple(config_file)]
        if all(Path(path).is_file() for path in files):
            check_overrides(files, {key: value for key, value in kwargs.items() if key not in OPTIONS})
        kwargs.setdefault("bundle_root", str(Path(files[0]).resolve().parent.parent))
        super().__init__(config_file=files, **kwargs)
