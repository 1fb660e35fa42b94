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

"""What a bundle trains with: the arguments of its trainer and its evaluator, parsed as they ship."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from monai.bundle import ConfigParser

from tests.bundles.journey import BUNDLES, KIDNEY, LIVER, PHOTOS, TEAMS, XPNET

# nothing that is trained with: where data are, and what needs a file of weights or takes seconds to build
ELSEWHERE: dict[str, Any] = {
    "device": torch.device("cpu"),
    "num_workers": 0,
    "progress": False,
    "tensorboard": False,
}
# as a module: a callable would need a checkpoint
NO_WEIGHTS = {"teacher_ckpt": None, "teacher_def::_mode_": "default"}
NO_WEIGHTS_OF_TEAMS = NO_WEIGHTS | {"assistant_f_ckpt": None, "assistant_b_ckpt": None}
NO_WEIGHTS_OF_XPNET = {
    "team::teachers": "$[monai_kd.networks.Teacher(@teacher_def()) for name in @teachers] if @distil else []"
}

# an overlay for each network that a bundle trains, and the one of 3D
STAGES: dict[str, list[str]] = {
    name: sorted(path.name for path in (folder / "configs").glob("train_*.yaml"))
    for name, folder in BUNDLES.items()
}
TRAININGS = [(name, overlay) for name, overlays in STAGES.items() for overlay in ["", *overlays]]


def without_weights(name: str) -> dict[str, Any]:
    """The overrides with which a bundle is built from no file but its data."""
    values = dict(ELSEWHERE)
    if name in TEAMS:
        values |= NO_WEIGHTS_OF_TEAMS | {"teacher_def::backbone": "tiny"}
    else:
        values |= NO_WEIGHTS_OF_XPNET if name == XPNET else NO_WEIGHTS
    if name in (LIVER, KIDNEY):
        values["cache"] = "none"
    if name in PHOTOS:
        values["cache_num"] = 0
    return values


def without_gain(parser: ConfigParser) -> ConfigParser:
    """A bundle whose gain is not said, which would need its data."""
    parser["gain"] = None
    return parser


class AsTrained:
    """A bundle's training, parsed. `trainer` and `evaluator` are the arguments that those would get."""

    def __init__(self, name: str, data: Path, *overlays: str, **values: Any) -> None:
        self.name = name
        files = ["train.yaml", *(overlay for overlay in overlays if overlay)]
        self.files = [str(BUNDLES[name] / "configs" / file) for file in files]
        places = {"dataset_dir": str(data), "bundle_root": str(data.parent)}  # not the checkout
        self.values = without_weights(name) | places | values

    def _parsed(self) -> ConfigParser:
        parser = ConfigParser()
        parser.read_config(self.files)
        known = {key: value for key, value in self.values.items() if key.split("::")[0] in parser}
        parser.update(known)
        return parser

    @cached_property
    def parser(self) -> ConfigParser:
        """With `dict` in the place of the trainer; the evaluator is MONAI's."""
        parser = self._parsed()
        parser["train::trainer::_target_"] = "dict"
        return parser

    @cached_property
    def trainer(self) -> dict[str, Any]:
        return self.parser.get_parsed_content("train::trainer")

    @cached_property
    def evaluator(self) -> dict[str, Any]:
        parser = self._parsed()
        parser["network"] = torch.nn.Identity()
        parser["validate::evaluator::_target_"] = "dict"
        return parser.get_parsed_content("validate::evaluator")

    def get(self, key: str) -> Any:
        """The value of an entry."""
        return self.parser.get_parsed_content(key)

    def handler(self, kind: str) -> Any:
        """The one of the trainer's handlers that is of a class; None without one."""
        handlers = self.trainer.get("train_handlers", [])
        found = [handler for handler in handlers if type(handler).__name__ == kind]
        assert len(found) < 2, f"{self.name} has {len(found)} {kind}"
        return found[0] if found else None

    def loader(self) -> Any:
        return self.trainer["train_data_loader"]

    def optimizer(self) -> Any:
        return self.trainer.get("optimizer") or self.trainer["g_optimizer"]


Trained = Callable[..., AsTrained]
