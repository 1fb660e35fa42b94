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

import json
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from monai.utils import ensure_tuple

from monai_kd.bundle.claim_checkpoints import set_aside, was_cut_off
from monai_kd.bundle.evaluate_stages import evaluate_stages
from monai_kd.bundle.kd_workflow import KDWorkflow
from monai_kd.bundle.latest_checkpoint import latest_checkpoint
from monai_kd.bundle.run_identity import comparable, configuration_identity
from monai_kd.data import replace_file
from monai_kd.data.differences import differences

logger = logging.getLogger("monai_kd")


class StagedWorkflow(KDWorkflow):
    """
    Runs the stages of a bundle in their order: its entry ``stages`` has for each the configurations that go over the
    first one, as ``{"teacher": ["train_teacher.yaml"], "student": []}``, in the same folder.

    A stage whose weights are there is left out; one that was stopped, or killed, goes on with ``resume.yaml``. When a
    stage was trained, all that come after it are trained as well, from the beginning, since they may have learnt from
    what was there before, which is set aside as ``.old``. So a second call after a finished one trains nothing.

    An entry ``evaluated`` names the stages whose networks are then evaluated with ``evaluate.yaml``. One page,
    ``report.html`` beside their scores, compares the others with the first of them. Evaluations and a page that are
    newer than the weights are left out.

    The configuration that a stage was trained with is kept beside its weights (``.NAME.pt.settings``). Where another
    one is given, the last stage is refused, since its weights are not what was asked for, and earlier ones are warned
    of, since they may do all the same: a teacher does not know the weights of the terms. So are weights that are older
    than those of an earlier stage. Weights that another command trained are taken as they are.

    ``python -m monai.bundle run_workflow --workflow_name monai_kd.bundle.StagedWorkflow --config_file .../train.yaml``

    Args:
        config_file: the configuration with the stages, or several, the later over the earlier. What stands behind the
            first goes over each stage.
        kwargs: as for :py:class:`~monai_kd.bundle.KDWorkflow`. An override of what a stage's own configurations set, as
            ``ckpt_name``, is for the other stages.

    Raises:
        FileNotFoundError: when a configuration is missing.
        ValueError: when an override is not an entry of the configuration, it has no ``stages``, ``evaluated`` names
            another one, or (as it runs, before a stage is trained) the last stage is finished with other settings.
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
        unknown = [name for name in self.parser.get("evaluated") or [] if name not in self.parser.get("stages")]
        if unknown:
            raise ValueError(
                f"`evaluated` must name stages, which are {', '.join(self.parser.get('stages'))}, but got "
                f"{', '.join(map(str, unknown))}."
            )

    def initialize(self) -> None:
        """Nothing: each stage initializes itself."""

    def run(self) -> None:
        """Train, evaluate and report what is not finished."""
        stages = {name: self._stage(overlays) for name, overlays in self.parser.get("stages").items()}
        self._train(list(stages.values()))
        evaluated = {name: stages[name] for name in self.parser.get("evaluated") or []}
        if evaluated:
            evaluate_stages(evaluated)

    def _train(self, stages: list[tuple[list[str], dict[str, Any]]]) -> None:
        workflows = [KDWorkflow(files, **override) for files, override in stages]
        weights = [_best(workflow.parser) for workflow in workflows]
        settings = [configuration_identity(workflow.parser.get()) for workflow in workflows]
        states = [_state(workflow.parser) for workflow in workflows]
        if set(states) == {"finished"}:
            _check_settings(weights[-1], settings[-1])
        for number, name in enumerate(self.parser.get("stages")):
            stage, best, state = workflows[number], weights[number], states[number]
            if state == "finished":
                logger.info(f"stage {name}: finished, {best} is there")
                other = _other_settings(best, settings[number])
                if other:
                    logger.warning(
                        f"{best} was trained with {other}; it is taken as it is: where that matters, remove the file, "
                        "and the stage is trained anew"
                    )
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
            _write_settings(best, settings[number])
            for later in range(number + 1, len(weights)):  # on the disk: this process may end before they have begun
                set_aside(weights[later])
                states[later] = "missing"

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
    best = _best(parser)
    try:
        epoch = re.search(r"=(\d+)$", Path(latest_checkpoint(folder, prefix)).stem)
    except FileNotFoundError:  # deleted after training, or killed in the first epoch
        return "finished" if best.is_file() and not was_cut_off(best) else "missing"
    if epoch and int(epoch[1]) < int(parser.get_parsed_content("max_epochs")):
        return "stopped"
    return "finished" if best.is_file() else "missing"


def _settings_file(best: Path) -> Path:
    return best.with_name(f".{best.name}.settings")


def _write_settings(best: Path, settings: dict[str, Any]) -> None:
    if best.is_file():
        found = {"weights": best.stat().st_mtime_ns, "settings": settings}
        replace_file(_settings_file(best), json.dumps(found))


def _other_settings(best: Path, settings: dict[str, Any]) -> str:
    """What the weights were trained with and these settings do not have; nothing where it is not known."""
    try:
        found = json.loads(_settings_file(best).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    if found["weights"] != best.stat().st_mtime_ns:  # trained again by another command
        return ""
    return differences(comparable(found["settings"]), settings)


def _check_settings(best: Path, settings: dict[str, Any]) -> None:
    other = _other_settings(best, settings)
    if other:
        raise ValueError(
            f"the last stage must have the settings that {best} was trained with, but got {other}; train it under "
            "another `--ckpt_name`, all stages under another `--bundle_root`, or remove the file to train it anew."
        )


def _best(parser: Any) -> Path:
    return Path(parser.get_parsed_content("best_ckpt"))
