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

"""The networks of a bundle on its test cases, and one page that compares them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from monai_kd.bundle.kd_workflow import KDWorkflow
from monai_kd.cli.report import report

logger = logging.getLogger("monai_kd")

EVALUATE = "evaluate.yaml"
WRITTEN = ("cases.csv", "summary.json")
Stage = tuple[Sequence[str], Mapping[str, Any]]


def evaluate_stages(stages: Mapping[str, Stage]) -> Path:
    """
    Evaluate the networks of stages that are trained, and report.

    An evaluation that is newer than the weights is left out. So is a report that is newer than the
    evaluations.

    Args:
        stages: for each stage its configurations and overrides, as for
            :py:class:`~monai_kd.bundle.KDWorkflow`. Beside the first configuration lies
            ``evaluate.yaml``. The first stage is what the report compares with.

    Returns:
        the page.

    Raises:
        FileNotFoundError: when ``evaluate.yaml`` or the weights of a stage are missing.
    """
    folders = [_evaluated(name, *stage) for name, stage in stages.items()]
    page = folders[0].parent / "report.html"
    newest = max(_time(folder / WRITTEN[0]) for folder in folders)
    if page.is_file() and _time(page) > newest:
        logger.info(f"report: {page} is there")
    else:
        logger.info(report(*map(str, folders), output=str(page)))
    return page


def _evaluated(name: str, files: Sequence[str], override: Mapping[str, Any]) -> Path:
    """The folder with the scores of a stage."""
    overlay = str(Path(files[0]).parent / EVALUATE)
    fixed = {key.lstrip("+") for key in ConfigParser.load_config_file(overlay)}
    kept = {key: value for key, value in override.items() if key.lstrip("+") not in fixed}
    workflow = KDWorkflow([*files, overlay], **kept)
    value = workflow.parser.get_parsed_content
    folder, best = Path(value("output_dir")) / value("ckpt_name"), Path(value("best_ckpt"))
    written = [folder / file for file in WRITTEN]
    if best.is_file() and all(_time(path) > _time(best) for path in written):
        logger.info(f"evaluation of {name}: finished, {folder} is there")
        return folder
    logger.info(f"evaluation of {name}: starts")
    workflow.initialize()
    workflow.run()
    workflow.finalize()
    return folder


def _time(path: Path) -> int:
    """When a file was written; 0 for one that is missing."""
    return path.stat().st_mtime_ns if path.is_file() else 0
