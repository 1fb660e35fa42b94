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
from types import SimpleNamespace

import numpy as np
import pytest
import torch


@pytest.fixture
def parity_case(shared_parity):
    """Read a case by its file name: the inputs, and the loss and gradients that the released code computed of them."""

    def read(name: str) -> SimpleNamespace:
        cases = json.loads((shared_parity / "cases.json").read_text())["cases"]
        case = next(case for case in cases if case.get("npz") == f"{name}.npz")
        with np.load(shared_parity / f"{name}.npz") as arrays:
            tensors = {key: torch.from_numpy(arrays[key]) for key in arrays}
        if "s" in tensors:
            tensors["s"].requires_grad_()
        return SimpleNamespace(**case, **tensors)

    return read
