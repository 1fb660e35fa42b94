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

from __future__ import annotations

import json
from pathlib import Path

import pytest


@pytest.fixture
def small_bundle(tmp_path) -> Path:
    """A bundle whose student has 20 parameters and whose teacher 40."""
    folder = tmp_path / "small"
    for name in ("configs", "docs", "models"):
        (folder / name).mkdir(parents=True)

    def network(channels: int) -> dict:
        return {"_target_": "torch.nn.Conv2d", "in_channels": 1, "out_channels": channels, "kernel_size": 3}

    train = {"teacher_def": network(4), "lazy_def": network(6) | {"_mode_": "callable"}, "network_def": network(8)}
    (folder / "configs" / "metadata.json").write_text(json.dumps({"version": "0.1.0", "description": "two small nets"}))
    (folder / "configs" / "inference.json").write_text(json.dumps({"network_def": network(2)}))
    (folder / "configs" / "train.json").write_text(json.dumps(train))
    (folder / "configs" / "evaluate.json").write_text(json.dumps({"validate::dataset::data": []}))  # an overlay
    (folder / "models" / "model.pt").write_bytes(b"weights")
    return folder


@pytest.fixture(scope="session")
def few_cases():
    """The fewest generated cases that the demo takes."""
    from monai_kd.bundle.demo_cases import demo_cases

    return demo_cases(36, seed=0)
