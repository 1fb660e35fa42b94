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

"""What each of two processes does in the tests of multi_gpu_train.yaml; its results are left in a folder."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import torch
from monai.engines import AdversarialTrainer

from tests.bundles.journey import BUNDLES, run_configs

RUNS = {  # name: (configurations, overrides)
    "teacher": (
        ["train.yaml", "train_teacher.yaml"],
        {"resume::saver::save_interval": 0},
    ),  # a quarter of a gigabyte each
    "student_alone": (["train.yaml", "train_student.yaml"], {}),
    "model": (["train.yaml"], {"max_epochs": 2, "decay_epochs": 2}),
    "halves": (["train.yaml"], {"max_epochs": 1, "decay_epochs": 2, "ckpt_name": "halves"}),
    "halves, resumed": (["train.yaml"], {"max_epochs": 2, "decay_epochs": 2, "ckpt_name": "halves"}),
}


def main(
    rank: int, folder: str, name: str, ports: list[int], override: dict[str, Any], runs: dict[str, Any] = RUNS
) -> None:
    """Train teacher, student alone and student distilled, and the latter in two halves, on one rank of two."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    found = {}
    for (run, (configs, own)), port in zip(runs.items(), ports):
        os.environ["MASTER_PORT"] = str(port)
        configs = [*configs, "multi_gpu_train.yaml", *(["resume.yaml"] if "resumed" in run else [])]
        workflow = run_configs(BUNDLES[name], configs, bundle_root=folder, **(override | own))
        trainer = workflow.parser.get_parsed_content("train::trainer")
        output, adversary = trainer.state.output, workflow.parser.get_parsed_content("distillation")[-1:]
        if isinstance(trainer, AdversarialTrainer):
            network, discriminator, items = trainer.state.g_network, trainer.state.d_network, [output]
        else:
            network, discriminator, items = trainer.network, None, output
        for handler in adversary:
            discriminator = getattr(handler, "discriminator", None)
        found[run] = {
            "weights": {key: value.detach().clone() for key, value in network.module.state_dict().items()},
            "discriminator": {} if discriminator is None else discriminator.state_dict(),
            "terms": {key: float(value) for key, value in items[0].items() if key.startswith("loss_")},
            "images": torch.stack([item["image"].as_tensor().sum() for item in items]),
        }
    torch.save(found, Path(folder) / f"rank{rank}.pt")
