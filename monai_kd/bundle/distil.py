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
import os
import time
from collections.abc import Mapping
from contextlib import chdir
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events
from monai.bundle import ConfigParser, ConfigWorkflow
from monai.engines import SupervisedEvaluator
from monai.handlers import CheckpointLoader
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

import monai_kd
from monai_kd.bundle.best_checkpoint_saver import BestCheckpointSaver
from monai_kd.bundle.bundle_parts import BundleParts, bundle_parts
from monai_kd.bundle.latest_checkpoint import latest_checkpoint, resume_checkpoints
from monai_kd.bundle.locate import locate_bundle
from monai_kd.bundle.override_value import FILES
from monai_kd.bundle.random_state import RandomState
from monai_kd.bundle.read_fraction import read_fraction
from monai_kd.bundle.resume_saver import ResumeSaver
from monai_kd.bundle.student_bundle import write_student_bundle
from monai_kd.bundle.trainer_parts import size
from monai_kd.bundle.write_weights import write_weights
from monai_kd.data.write_aside import replace_file
from monai_kd.handlers import DistillationHandler, DistillationTerm, GainHandler
from monai_kd.losses import KDLoss
from monai_kd.networks import Teacher, shrink
from monai_kd.networks.bundle_config import components, inference_loader
from monai_kd.networks.bundle_importable import bundle_importable
from monai_kd.networks.feature_capture import unwrap
from monai_kd.networks.shrink import build, flops_of, shrink_to_flops
from monai_kd.networks.weights_checksum import weights_checksum

logger = logging.getLogger("monai_kd")
RECORD = "distillation.json"
FIRST = "1/4"  # of the widths, where nothing is asked for


class LogitsOfImages(nn.Module):
    """A loss of maps for a network that gives one vector of logits (B, C) for an image."""

    def __init__(self, loss: nn.Module) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, student: torch.Tensor, teacher: torch.Tensor, label: torch.Tensor | None = None) -> torch.Tensor:
        """
        Args:
            student: logits (B, C).
            teacher: logits (B, C).
            label: is not used.
        """
        return self.loss(student[..., None, None], teacher[..., None, None])


@dataclass
class Plan:
    """
    Who teaches whom, by what, and where it goes.

    Args:
        parts: of the teacher's bundle.
        teacher: its network with its weights.
        block: arguments of the student's network.
        student: a network of them.
        vectors: whether they give one vector of logits for an image.
        output: folder of the student's bundle.
        terms: a YAML file with terms, or "" for the divergence of the outputs.
        weight: of that divergence, ``auto`` or a number.
        baseline: weights of the student alone, or "".
    """

    parts: BundleParts
    teacher: nn.Module
    block: dict[str, Any]
    student: nn.Module
    vectors: bool
    output: Path
    terms: str
    weight: str | float
    baseline: str

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What the student's bundle says of itself."""
        facts: dict[str, Any] = {
            "teacher": self.parts.folder.name,
            "teacher_weights": f"{weights_checksum(self.teacher):08x}",
            "teacher_parameters": size(self.teacher),
            "parameters": size(self.student),
            "terms": self.terms or f"KDLoss(temperature=1, activation={self.parts.activation!r})",
            "weight": self.weight,
            "monai_kd": monai_kd.__version__,
        }
        if self.parts.input_shape:
            shape = self.parts.input_shape
            facts["flops"] = flops_of(self.student, shape)
            facts["teacher_flops"] = flops_of(self.teacher, shape)
            facts["input_shape"] = list(shape)
        return facts

    def text(self) -> str:
        """The plan in a few lines."""
        parts, facts = self.parts, self.facts
        changed = {key: value for key, value in self.block.items() if parts.block.get(key) != value}
        share = f"{facts['parameters'] / facts['teacher_parameters']:.1%} of its parameters"
        if "flops" in facts:
            share += f", {facts['flops'] / facts['teacher_flops']:.1%} of its FLOPs"
        kind = str(self.block.get("_target_", "")).rpartition(".")[2]
        lines = [
            f"teacher: {type(self.teacher).__name__} of {parts.folder}, {facts['teacher_parameters']:,} parameters, "
            f"weights {parts.weights}",
            f"student: {kind}, {facts['parameters']:,} parameters, {share}; {changed}",
            f"terms: {facts['terms']}, weight {self.weight}",
            f"in: trainer {parts.trainer}, network {parts.network}, validated by {parts.evaluator or 'nothing'}",
            f"to: {self.output}",
        ]
        lines += [f"left out: {name}, which would load weights into the student" for name in parts.loaders]
        return "\n".join(lines)


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
    plan = _plan(parts, student, flops, target, terms, weight, baseline)
    if dry_run:
        return plan.text()
    record = _record(plan)
    if record.get("finished"):
        return _result(plan, record)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    for line in plan.text().splitlines():
        logger.info(line)
    scores = _train(plan)
    if _rank() == 0:
        record |= {"finished": True, "scores": scores}
        replace_file(target / RECORD, json.dumps(record, indent=1))
    return _result(plan, record)


def _rank() -> int:
    return int(os.environ.get("RANK", 0))


def _absolute(key: str, value: Any) -> Any:
    """A path that is given from here, for a run in the folder of the student."""
    is_path = isinstance(value, str) and key.endswith(FILES) and Path(value).expanduser().exists()
    return str(Path(value).expanduser().resolve()) if is_path else value


def _plan(parts: BundleParts, student: Any, flops: Any, output: Path, terms: str, weight: Any, baseline: str) -> Plan:
    with bundle_importable(parts.folder):
        teacher = build(parts.block)
        Teacher(teacher, parts.weights)  # loads the weights, and refuses those of another network
        block = _block(parts, student, flops)
        network = build(block)
    vectors = _check_outputs(teacher, network, parts)
    weight = weight if weight == "auto" else read_fraction("weight", weight)
    return Plan(parts, teacher, block, network, vectors, output, terms, weight, baseline)


def _block(parts: BundleParts, student: Any, flops: Any) -> dict[str, Any]:
    """The arguments of the student's network."""
    if student != "" and flops != "":
        raise ValueError("`student` or `flops` must be given, but got both.")
    if flops != "":
        if parts.input_shape is None:
            raise ValueError(
                "`flops` must be counted for the image of configs/metadata.json, but got no spatial_shape of numbers "
                "there; use --student."
            )
        text = str(flops).strip()
        share = read_fraction("flops", text.rstrip("%")) / (100 if text.endswith("%") else 1)
        return shrink_to_flops(parts.block, share, parts.input_shape)
    if str(student).endswith((".yaml", ".yml", ".json")):
        return _block_of_file(Path(student), parts)
    return shrink(parts.block, read_fraction("student", student or FIRST))


def _block_of_file(path: Path, parts: BundleParts) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"`student` must be a part as 1/4 or an existing file, but got {path}.")
    content = ConfigParser.load_config_file(str(path))
    content = content.get(parts.network, content) if isinstance(content, Mapping) else {}
    if "_target_" not in content:
        raise ValueError(f"`student` must be a file with a `_target_` block, but got {path}.")
    parser = ConfigParser(dict(parts.config) | {"student": dict(content)})
    with bundle_importable(parts.folder):
        return dict(parser.get_parsed_content("student", instantiate=False).config)


def _check_outputs(teacher: nn.Module, student: nn.Module, parts: BundleParts) -> bool:
    """Refuse networks whose outputs cannot be compared, before data is read; True for one vector for an image."""
    if parts.input_shape is None:
        return False
    outputs = []
    for name, network in (("teacher", teacher), ("student", student)):
        try:
            with torch.no_grad():
                output = network.eval()(torch.zeros(parts.input_shape))
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(
                f"the {name} must take an image {tuple(parts.input_shape)} alone, but {type(network).__name__} "
                f"raises {type(error).__name__}: {reason}"
            ) from error
        output = output[0] if isinstance(output, (list, tuple)) and len(output) else output
        if not isinstance(output, torch.Tensor):
            raise ValueError(
                f"the {name} must give one tensor of logits or a list of them, but {type(network).__name__} gives a "
                f"{type(output).__name__}; such networks cannot be distilled by this command."
            )
        outputs.append(output)
    first, second = outputs
    if first.shape != second.shape:
        raise ValueError(
            f"`student` must give the output of its teacher, {tuple(first.shape)}, but got {tuple(second.shape)}."
        )
    maps = tuple(first.shape[2:]) == tuple(parts.input_shape[2:])
    if not maps and first.ndim != 2:
        raise ValueError(
            "the teacher must give logits for each pixel (segmentation) or for an image (classification), but got "
            f"{tuple(first.shape)} for an image {tuple(parts.input_shape)}."
        )
    return first.ndim == 2


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
    if _rank() > 0:
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


def _terms(plan: Plan) -> list[DistillationTerm]:
    if plan.terms:
        content = ConfigParser.load_config_file(plan.terms)
        content = content.get("terms", content) if isinstance(content, Mapping) else content
        found = ConfigParser({"terms": content}).get_parsed_content("terms")
        return list(found)
    loss: nn.Module = KDLoss(temperature=1.0, activation=plan.parts.activation)
    return [DistillationTerm(LogitsOfImages(loss) if plan.vectors else loss, plan.weight, name="kd")]


def _train(plan: Plan) -> dict[str, float]:
    """Run the training of the student's bundle with the distillation attached; the scores that are known."""
    output, parts = plan.output, plan.parts
    terms = _terms(plan)
    files = [str(output / "configs" / path.name) for path in parts.files]
    loader = inference_loader(output)
    best = loader[0] if loader else output / "models" / "model.pt"
    with bundle_importable(output), chdir(output):
        settings = output / "configs" / "logging.conf"
        workflow = ConfigWorkflow(
            files,
            logging_file=str(settings) if settings.is_file() else False,
            run_id=parts.run,
            workflow_type="train",
            **_without(parts.override, parts.network),  # the student's files have the student's block
        )
        parser = workflow.parser
        parser["bundle_root"] = str(output)
        for name in [*parts.loaders, *_savers(parser, best)]:
            parser[f"{name}::_disabled_"] = True
        workflow.initialize()
        trainer = parser.get_parsed_content(parts.trainer)
        _check_student(unwrap(trainer.network), plan)
        handler = DistillationHandler(Teacher(plan.teacher), terms)
        handler.attach(trainer)
        kept: dict[str, Any] = {"distillation": handler}
        gain = None
        if parts.evaluator is not None:
            evaluator = parser.get_parsed_content(parts.evaluator)
            saver = BestCheckpointSaver(best, {"model": unwrap(trainer.network)})
            saver.attach(evaluator)
            gain = _gain(plan, parser, evaluator, handler)
            gain.attach(trainer)
            kept |= {"best": saver, "gain": gain}
        _resumable(trainer, parser, output, kept)
        workflow.run()
        workflow.finalize()
    if parts.evaluator is None and _rank() == 0:
        write_weights(unwrap(trainer.network).state_dict(), best)
    return {} if gain is None else dict(gain.scores)


def _without(override: Mapping[str, Any], network: str) -> dict[str, Any]:
    """The overrides that do not describe the network."""
    return {
        key: value for key, value in override.items() if not f"{key.replace('#', '::')}::".startswith(f"{network}::")
    }


def _check_student(network: nn.Module, plan: Plan) -> None:
    """Refuse to train another network than the plan says, before the first step."""
    planned = {name: tuple(value.shape) for name, value in plan.student.state_dict().items()}
    found = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    if found != planned:
        raise ValueError(
            f"`{plan.parts.trainer}` must train the student of {size(plan.student):,} parameters, but got "
            f"{type(network).__name__} of {size(network):,}; an --override or a configuration changes its network."
        )


def _savers(parser: ConfigParser, best: Path) -> list[str]:
    """Savers of the bundle that write the file of the best weights, which is written here so that a resume is exact."""
    found = []
    for key, block in components(parser.get()):
        named = str(block["_target_"]).endswith("CheckpointSaver") and block.get("save_key_metric")
        if named and str(block.get("key_metric_filename", "")) == best.name:
            found.append(key)
    return found


def _gain(plan: Plan, parser: ConfigParser, evaluator: Any, handler: DistillationHandler) -> GainHandler:
    """What the teacher scores on the validation cases, and what was gained."""
    block = parser.get(plan.parts.evaluator)

    def of(name: str) -> Any:
        return parser.get_parsed_content(f"{plan.parts.evaluator}::{name}") if name in block else None

    teacher = SupervisedEvaluator(
        device=evaluator.state.device,
        val_data_loader=evaluator.data_loader,
        network=plan.teacher.to(evaluator.state.device),
        inferer=evaluator.inferer,
        postprocessing=of("postprocessing"),
        key_val_metric=of("key_val_metric"),
        prepare_batch=evaluator.prepare_batch,
        amp=evaluator.amp,
    )
    again = "run the same command with --weight 0 and another --output, and give its models/model.pt as --baseline"
    return GainHandler(
        evaluator,
        teacher,
        plan.baseline or None,
        plan.output / "models" / "teacher_score.json",
        handler,
        again,
    )


def _resumable(trainer: Any, parser: ConfigParser, output: Path, kept: dict[str, Any]) -> None:
    """Save after each epoch all that the training needs, and go on from what was saved."""
    folder = output / "models" / "resume"
    parsed = parser.ref_resolver.resolved_content.values()
    schedulers = [each for each in parsed if isinstance(each, LRScheduler)]
    random = RandomState(trainer.data_loader)
    states = {"network": trainer.network, "optimizer": trainer.optimizer, "trainer": trainer, **kept}
    states |= {f"scheduler_{number}": each for number, each in enumerate(schedulers)}
    if getattr(trainer, "scaler_", None) is not None:  # there with mixed precision on a GPU
        states["scaler"] = trainer.scaler_
    if resume_checkpoints(folder, "model"):
        file = latest_checkpoint(folder, "model")
        CheckpointLoader(file, states, map_location=trainer.state.device).attach(trainer)
        content = torch.load(file, map_location="cpu", weights_only=True)
        first = content["trainer"]["iteration"] // content["trainer"]["epoch_length"] + 1
        trainer.add_event_handler(Events.EPOCH_STARTED(once=first), lambda: random.load_state_dict(content["random"]))
        logger.info(f"goes on after epoch {first - 1}, {file}")
    if _rank() == 0:
        ResumeSaver(str(folder), {**states, "random": random}, file_prefix="model", save_interval=1, n_saved=2).attach(
            trainer
        )


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
