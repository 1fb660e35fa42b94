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

"""The trainer that nnU-Net finds in this folder (``nnUNet_extTrainer``)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from monai_kd.data.write_aside import write_aside
from monai_kd.networks import Teacher
from monai_kd.nnunet.distilled_loss import DistilledLoss
from monai_kd.nnunet.plans import SETTINGS

ENTRY = "monai_kd"  # of a checkpoint


class nnUNetTrainerDistillation(nnUNetTrainer):
    """
    nnU-Net's trainer with a teacher in the loss. Loading, augmentation, schedule, deep supervision, mixed precision,
    resume (``--c``) and logging are nnU-Net's.

    The plans say who teaches, under ``monai_kd`` (``python -m monai_kd nnunet shrink`` writes them): ``teacher``, a
    results folder; ``checkpoint``; ``weight``, ``"auto"`` or a number; ``temperature``; and ``folds``. The teacher is
    by default of the student's fold, since those of other folds were trained on the cases that validate this one.

    A checkpoint names ``nnUNetTrainer``, so that ``nnUNetv2_predict`` runs the student where monai_kd is not known.
    """

    loss: Any

    def initialize(self) -> None:
        """Build the network and the loss, and load the teacher."""
        fresh = not self.was_initialized
        super().initialize()
        if fresh:
            self.loss = self._distilled(self.loss)

    def _distilled(self, loss: Any) -> DistilledLoss:
        settings = dict(self.plans_manager.plans.get(SETTINGS, {}))
        if "teacher" not in settings:
            raise ValueError(
                f"the plans {self.plans_manager.plans_name} must name a teacher, but got none; make them with "
                "`python -m monai_kd nnunet shrink RESULTS_FOLDER`."
            )
        folds = self._folds(settings)
        deep = self.enable_deep_supervision
        checkpoint = settings.get("checkpoint", "final")
        teacher = Teacher.from_nnunet(settings["teacher"], folds, checkpoint, deep_supervision=deep)
        activation = "sigmoid" if self.label_manager.has_regions else "softmax"
        self.print_to_log_file(
            f"taught by fold {', '.join(map(str, folds))} of {settings['teacher']} ({checkpoint}), weight "
            f"{settings.get('weight', 'auto')}"
        )
        return DistilledLoss(
            loss,
            teacher.to(self.device),
            settings.get("weight", "auto"),
            settings.get("temperature", 1.0),
            activation,
        )

    def _folds(self, settings: dict[str, Any]) -> Sequence[int | str]:
        """The folds of the teacher: that of the student, unless others are asked for."""
        folds = settings.get("folds") or [self.fold]
        folds = [folds] if isinstance(folds, (int, str)) else list(folds)
        others = [fold for fold in folds if str(fold) != str(self.fold)]
        if others and not settings.get("leak", False):
            raise ValueError(
                f"`folds` must be the student's fold {self.fold}, but got {', '.join(map(str, others))}: such a "
                "teacher was trained on cases that validate this fold, so that the validation would be too good. Train "
                'the teacher in this fold, or set "leak": true beside "folds" in the plans.'
            )
        return folds

    def train_step(self, batch: dict) -> dict:
        """
        Args:
            batch: nnU-Net's, with ``data`` and ``target``.
        """
        image = batch["data"].to(self.device, non_blocking=True)  # once: nnU-Net's own call finds it there
        self.loss.image = image
        try:
            return super().train_step(batch | {"data": image}) | dict(self.loss.seen)
        finally:
            self.loss.image = None

    def on_train_epoch_end(self, train_outputs: list[dict]) -> None:
        """
        Args:
            train_outputs: what the steps gave.
        """
        super().on_train_epoch_end([{"loss": each["loss"]} for each in train_outputs])
        names = [name for name in ("supervised", "kd", "weight") if name in train_outputs[0]]
        means = [f"{name} {np.mean([each[name] for each in train_outputs]):.4g}" for name in names]
        if means:
            self.print_to_log_file(f"distillation: {', '.join(means)}")

    def save_checkpoint(self, filename: str) -> None:
        """
        Args:
            filename: of the checkpoint, which is replaced as a whole.
        """
        if self.local_rank != 0 or self.disable_checkpointing:
            return
        with write_aside(filename) as aside:
            super().save_checkpoint(str(aside))
            content = torch.load(aside, map_location="cpu", weights_only=False)  # written a moment ago
            content["trainer_name"] = nnUNetTrainer.__name__
            content[ENTRY] = self.loss.state_dict()
            torch.save(content, aside)

    def load_checkpoint(self, filename_or_checkpoint: Any) -> None:
        """
        Args:
            filename_or_checkpoint: a file of this trainer, or its content.
        """
        super().load_checkpoint(filename_or_checkpoint)
        content = filename_or_checkpoint
        if isinstance(content, (str, os.PathLike)):
            content = torch.load(content, map_location="cpu", weights_only=False)  # as nnU-Net does
        if ENTRY in content:
            self.loss.load_state_dict(content[ENTRY])
