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

"""All stages of a bundle, one after the other."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from monai.utils import ensure_tuple

from monai_kd.bundle.claim_checkpoints import set_aside
from monai_kd.bundle.kd_workflow import KDWorkflow
from monai_kd.bundle.latest_checkpoint import resume_checkpoints

logger = logging.getLogger("monai_kd")


class StagedWorkflow(KDWorkflow):
    """
    Runs the stages of a bundle in their order: its entry ``stages`` has for each the configurations that go over the
    first one, as ``{"teacher": ["train_teacher.yaml"], "student": []}``, in the same folder.

    A stage whose weights are there is left out; one that was stopped goes on with ``resume.yaml``. When a stage was
    trained, all that come after it are trained as well, from the beginning, since they may have learnt from what was
    there before, which is set aside as ``.old``. So a second call after a finished one trains nothing, whatever its
    settings; weights that are older than those of an earlier stage are warned of.

    ``python -m monai.bundle run_workflow --workflow_name monai_kd.bundle.StagedWorkflow --config_file .../train.yaml``

    Args:
        config_file: the configuration with the stages, or several, the later over the earlier. What stands behind the
            first goes over each stage.
        kwargs: as for :py:class:`~monai_kd.bundle.KDWorkflow`. An override of what a stage's own configurations set, as
            ``ckpt_name``, is for the other stages.

    Raises:
        FileNotFoundError: when a configuration is missing.
        ValueError: when an override is not an entry of the configuration, or it has no ``stages``.
    """

    def __init__(self, config_file: str | Sequence[str], **kwargs: Any) -> None:
        super().__init__(config_file, **kwargs)
        self.files = [str(path) for path in ensure_tuple(config_file)]
        self.override = kwargs
        if not isinstance(self.parser.get("stages"), dict):
            raise ValueError(
                f"`stages` must be an entry of {self.files[0]} with the configurations of each stage, but got "
                f"{self.parser.get('stages')!r}."
            )

    def initialize(self) -> None:
        """Nothing: each stage initializes itself."""

    def run(self) -> None:
        """Run what is not finished."""
        stages = [self._stage(overlays) for overlays in self.parser.get("stages").values()]
        workflows = [KDWorkflow(files, **override) for files, override in stages]
        weights = [_best(workflow.parser) for workflow in workflows]
        for number, name in enumerate(self.parser.get("stages")):
            stage, best = workflows[number], weights[number]
            state = _state(stage.parser)
            if state == "finished":
                logger.info(f"stage {name}: finished, {best} is there")
                newer = [each for each in weights[:number] if each.stat().st_mtime_ns > best.stat().st_mtime_ns]
                if newer:
                    logger.warning(
                        f"{best} is older than {', '.join(map(str, newer))}: it may have learnt from earlier weights; "
                        "to train the stage anew, remove the file"
                    )
                continue
            if state == "stopped":
                files, override = stages[number]
                stage = KDWorkflow([*files, str(Path(files[0]).parent / "resume.yaml")], **override)
            logger.info(f"stage {name}: {'goes on' if state == 'stopped' else 'starts'}")
            stage.initialize()
            stage.run()
            stage.finalize()
            for later in weights[number + 1 :]:  # on the disk: this process may end before they have begun
                set_aside(later)

    def finalize(self) -> None:
        """Nothing: each stage finalizes itself."""

    def _stage(self, overlays: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
        """The configurations of a stage, and the overrides that are not its own business."""
        own = [str(Path(self.files[0]).parent / overlay) for overlay in overlays]
        fixed = {key.lstrip("+") for file in own for key in ConfigParser.load_config_file(file)}
        override = {key: value for key, value in self.override.items() if key.lstrip("+") not in fixed}
        return [self.files[0], *own, *self.files[1:]], override


def _state(parser: Any) -> str:
    """Whether a stage is finished, stopped or missing."""
    prefix, folder = parser.get_parsed_content("ckpt_name"), Path(parser.get_parsed_content("ckpt_dir")) / "resume"
    matches = [re.search(r"_checkpoint_epoch=(\d+)$", path.stem) for path in resume_checkpoints(folder, prefix)]
    epochs = [int(match[1]) for match in matches if match]
    if epochs and max(epochs) < int(parser.get_parsed_content("max_epochs")):
        return "stopped"
    return "finished" if _best(parser).is_file() else "missing"


def _best(parser: Any) -> Path:
    return Path(parser.get_parsed_content("best_ckpt"))
