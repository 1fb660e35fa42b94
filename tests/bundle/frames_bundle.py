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

"""A bundle for frames that is small enough to export in a test: the configuration that ships, another network."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from monai_kd.bundle import bundle_network, locate_bundle

NETWORK = {
    "_target_": "Convolution", "spatial_dims": 2, "in_channels": 3, "out_channels": 1, "kernel_size": 5, "bias": False,
    "conv_only": False, "act": "relu", "adn_ordering": "N",
}  # fmt: skip
SIZE = [24, 40]


def write_frames_bundle(folder: Path, network: dict[str, Any] | None = None) -> Path:
    """`polyp_endoscopy_kdas` with a network of one convolution at 24 x 40 pixels, and weights for it."""
    shutil.copytree(locate_bundle("polyp_endoscopy_kdas") / "configs", folder / "configs")
    config = json.loads((folder / "configs" / "inference.json").read_text("utf-8"))
    config |= {"network_def": network or NETWORK, "image_size": SIZE}
    (folder / "configs" / "inference.json").write_text(json.dumps(config), "utf-8")
    torch.manual_seed(0)
    student = bundle_network(folder)
    for statistic in student.buffers():
        if statistic.is_floating_point():
            statistic.uniform_(0.5, 1.5)  # batch normalisation in training mode would tell
    (folder / "models").mkdir()
    # as a training leaves it that saves more than its student
    teacher = {f"teacher.{name}": value for name, value in student.state_dict().items()}
    optimizer = torch.optim.Adam(student.parameters()).state_dict()
    torch.save(
        {"model": student.state_dict(), "optimizer": optimizer, "teacher_state": teacher},
        folder / "models" / "model.pt",
    )
    return folder
