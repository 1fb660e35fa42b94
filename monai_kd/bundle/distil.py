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

"""The verb ``distill`` of the command line: a smaller network for a MONAI bundle that is there."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monai_kd.bundle.bundle_parts import bundle_parts
from monai_kd.bundle.distil_plan import Plan, make_plan
from monai_kd.bundle.distil_training import rank, train_student
from monai_kd.bundle.locate import locate_bundle
from monai_kd.bundle.override_value import FILES
from monai_kd.bundle.student_bundle import write_student_bundle
from monai_kd.bundle.trainer_parts import size
from monai_kd.data.write_aside import replace_file

logger = logging.getLogger("monai_kd")
RECORD = "distillation.json"


def distil(
    bundle: str,
    student: str | float = "",
    flops: str | float = "",
    output: str = "",
    config: str = "train",
    checkpoint: str = "",
    terms: str = "",
    weight: str | float = "auto",
    activation: str = "",
    trainer_id: str = "",
    baseline: str = "",
    override: dict[str, Any] | None = None,
    dry_run: bool = False,
) -> str:
    """
    Distil the network of a MONAI bundle into a smaller one, and write a bundle of the student.

    The bundle trains as its own configuration says, with a smaller network and a term that pulls it towards the
    trained one. The student's bundle is ordinary: it trains, evaluates and predicts by ``python -m monai.bundle run``.
    The teacher's bundle is only read. The same command again goes on after the last epoch that was completed.

    Args:
        bundle: folder of the bundle, with its weights.
        student: the widths of the student, as a part of the teacher's: ``1/4``; or a YAML or JSON file with the
            ``_target_`` block of another network. 1/4 by default.
        flops: in place of ``student``, the part of the operations: ``10%``.
        output: a new folder for the student's bundle. By default ``BUNDLE_student`` beside the bundle.
        config: the configuration for training in configs/, or several with commas between them:
            ``train,multi_gpu_train``.
        checkpoint: the trained weights, where the configuration for inference does not name them.
        terms: a YAML file with a list of ``monai_kd.handlers.DistillationTerm`` blocks. By default the divergence of
            the outputs.
        weight: of that divergence: ``auto`` sets itself, 0 trains the student alone.
        activation: of the logits, ``softmax`` or ``sigmoid``, where the loss of the bundle does not tell it.
        trainer_id: id of the trainer in the configuration, where there are several.
        baseline: weights of the student alone, to compare with.
        override: entries of the configuration by id: ``"{'dataset_dir': '/data/Task09_Spleen'}"``.
        dry_run: whether only to say what would be done.

    Returns:
        what was done, as text.

    Raises:
        FileNotFoundError: when the bundle, a configuration or the weights are missing.
        ValueError: when the bundle cannot be distilled, or the folder holds another distillation.

    Example::

        >>> from monai_kd.bundle.distil import distil
        >>> distil("no_such_bundle")
        Traceback (most recent call last):
        FileNotFoundError: `bundle` must be a folder with configs/ or the name of a shipped bundle, ...
    """
    folder = locate_bundle(bundle)
    target = Path(output).resolve() if output else folder.with_name(f"{folder.name}_student")
    if target == folder or folder in target.parents:
        raise ValueError(f"`output` must not lie in the bundle, whose weights are the teacher's, but got {target}.")
    given = {key: _absolute(key, value) for key, value in (override or {}).items()}
    parts = bundle_parts(folder, config, given, trainer_id, activation, checkpoint)
    plan = make_plan(parts, student, flops, target, terms, weight, baseline)
    if dry_run:
        return plan.text()
    record = _record(plan)
    if record.get("finished"):
        return _result(plan, record)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    for line in plan.text().splitlines():
        logger.info(line)
    scores = train_student(plan)
    if rank() == 0:
        record |= {"finished": True, "scores": scores}
        replace_file(target / RECORD, json.dumps(record, indent=1))
    return _result(plan, record)


def _absolute(key: str, value: Any) -> Any:
    """A path that is given from here, for a run in the folder of the student."""
    is_path = isinstance(value, str) and key.endswith(FILES) and Path(value).expanduser().exists()
    return str(Path(value).expanduser().resolve()) if is_path else value


def _record(plan: Plan) -> dict[str, Any]:
    """Make the student's bundle, or find that it was made by the same command."""
    file = plan.output / RECORD
    facts = plan.facts
    overrides = {key: value for key, value in plan.parts.override.items() if key != "bundle_root"}
    same = {
        "student": {key: repr(value) for key, value in plan.block.items()},
        "teacher_weights": facts["teacher_weights"],
        "terms": Path(plan.terms).read_text("utf-8") if plan.terms else facts["terms"],
        "weight": str(plan.weight),
        "config": [path.name for path in plan.parts.files],
        "override": {key: repr(value) for key, value in overrides.items()},
    }
    if rank() > 0:
        while not file.is_file():
            time.sleep(0.2)
    if not file.is_file():
        text = json.dumps({"settings": same}, indent=1)
        write_student_bundle(plan.parts, plan.block, plan.output, facts, {RECORD: text})
    record = json.loads(file.read_text("utf-8"))
    kept = record.get("settings", {})
    different = [key for key, value in same.items() if kept.get(key) != value]
    if different:
        key = different[0]
        raise ValueError(
            f"`output` must be new, or of a distillation with the same settings, but in {plan.output} `{key}` is "
            f"{kept.get(key)}, and {same[key]} is asked for; give another --output."
        )
    return record


def _result(plan: Plan, record: Mapping[str, Any]) -> str:
    """What was gained, and where the student is."""
    scores = record.get("scores", {})
    said = ", ".join(f"{name} {score:.3f}" for name, score in scores.items())
    first = f"{said} (validation). " if said else ""
    share = size(plan.student) / size(plan.teacher)
    return (
        f"{first}The student has {share:.1%} of the parameters of its teacher. Its bundle is {plan.output}: "
        f"python -m monai.bundle run --config_file configs/inference.json, in this folder."
    )


distill = distil  # the verb
