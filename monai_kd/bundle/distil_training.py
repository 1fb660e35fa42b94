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

"""The training of a bundle's student, with the distillation attached."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from contextlib import chdir
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events
from monai.bundle import ConfigParser, ConfigWorkflow
from monai.engines import SupervisedEvaluator
from monai.handlers import CheckpointLoader
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from monai_kd.bundle.best_checkpoint_saver import BestCheckpointSaver
from monai_kd.bundle.distil_plan import Plan
from monai_kd.bundle.latest_checkpoint import latest_checkpoint, resume_checkpoints
from monai_kd.bundle.random_state import RandomState
from monai_kd.bundle.resume_saver import ResumeSaver
from monai_kd.bundle.trainer_parts import size
from monai_kd.bundle.write_weights import write_weights
from monai_kd.handlers import DistillationHandler, DistillationTerm, GainHandler
from monai_kd.losses import KDLoss
from monai_kd.networks import Teacher
from monai_kd.networks.bundle_config import components, inference_loader
from monai_kd.networks.bundle_importable import bundle_importable
from monai_kd.networks.feature_capture import unwrap

logger = logging.getLogger("monai_kd")


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


def rank() -> int:
    """The rank of this process, before any process group is there."""
    return int(os.environ.get("RANK", 0))


def _terms(plan: Plan) -> list[DistillationTerm]:
    if plan.terms:
        content = ConfigParser.load_config_file(plan.terms)
        content = content.get("terms", content) if isinstance(content, Mapping) else content
        found = ConfigParser({"terms": content}).get_parsed_content("terms")
        return list(found)
    loss: nn.Module = KDLoss(temperature=1.0, activation=plan.parts.activation)
    return [DistillationTerm(LogitsOfImages(loss) if plan.vectors else loss, plan.weight, name="kd")]


def train_student(plan: Plan) -> dict[str, float]:
    """
    Run the training of the student's bundle with the distillation attached. It goes on after the last finished epoch.

    Args:
        plan: of the distillation; the bundle of the student is there.

    Returns:
        the scores that are known: ``teacher``, ``alone``, ``distilled``.

    Raises:
        ValueError: when the trainer has another network than the plan.
    """
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
    if parts.evaluator is None and rank() == 0:
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
    if rank() == 0:
        ResumeSaver(str(folder), {**states, "random": random}, file_prefix="model", save_interval=1, n_saved=2).attach(
            trainer
        )
