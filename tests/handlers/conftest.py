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

"""What tests of compiled networks and of mixed precision share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch


@pytest.fixture
def fresh_compiler() -> Iterator[None]:
    """Nothing compiled before, and nothing left behind."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.fixture
def emulated_amp(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Mixed precision as MONAI's ``amp=True`` has it on CUDA: autocast (bfloat16 here) and a scaler that scales."""
    autocast, scaler = torch.autocast, torch.amp.GradScaler
    cpu = {"device_type": "cpu", "dtype": torch.bfloat16}
    monkeypatch.setattr(torch, "autocast", lambda device, **kwargs: autocast(**(cpu | kwargs)))
    monkeypatch.setattr(torch.cuda.amp, "GradScaler", lambda: scaler("cpu", init_scale=1024.0))
    return {"autocast": lambda: autocast(**cpu), "scaler": scaler("cpu", init_scale=1024.0)}
