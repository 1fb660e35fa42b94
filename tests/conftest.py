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

"""What all tests share: reproducible draws, one thread, and the folders of data that may lie beside the checkout."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from monai.utils import set_determinism

SHARED = Path(__file__).resolve().parents[2] / "shared"

# a loaded machine is no failure, and neither is yesterday's draw
settings.register_profile("tests", deadline=None, derandomize=True, database=None, max_examples=25)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "tests"))


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """Tests run several at a time, and one thread gives the same sums on every machine."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """A test draws the same numbers alone and among others."""
    torch.manual_seed(0)


@pytest.fixture
def full_disk() -> Callable[[int], AbstractContextManager[None]]:
    """In its block a file ends after so many bytes, with the error that a full disk gives too."""
    resource = pytest.importorskip("resource")

    @contextmanager
    def limited(size: int) -> Iterator[None]:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))  # Python ignores the signal
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limited


@pytest.fixture
def deterministic() -> Iterator[None]:
    """Seeds numpy, random, torch and MONAI's transforms, and asks torch for deterministic algorithms."""
    set_determinism(seed=0)
    yield
    set_determinism(seed=None)


def _shared(name: str) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"needs the folder ../shared/{name} beside the checkout")
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real images with labels."""
    return _shared("data")


@pytest.fixture(scope="session")
def shared_parity() -> Path:
    """Numbers that the code released with the papers computes."""
    return _shared("parity")
