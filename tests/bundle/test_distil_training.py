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

"""The training of a student in the bundle's own trainer."""

from __future__ import annotations

import pytest
import torch

from monai_kd import distil
from monai_kd.bundle.distil_training import LogitsOfImages, rank
from monai_kd.losses import KDLoss
from tests.bundle.test_distil import file_of_unet
from tests.bundle.zoo_bundles import write_nested
from tests.bundles.journey import undisturbed


@pytest.fixture(autouse=True)
def _as_it_was():
    with undisturbed():
        yield


def test_loss_of_vectors_is_that_of_a_map_of_one_pixel():
    student, teacher = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    expected = (teacher.softmax(1) * (teacher.log_softmax(1) - student.log_softmax(1))).sum(1).mean()
    torch.testing.assert_close(LogitsOfImages(KDLoss(1.0))(student, teacher), expected)


def test_network_that_is_not_the_student_is_refused_before_the_first_step(tmp_path, monkeypatch):
    write_nested(tmp_path / "teacher")
    monkeypatch.setattr("monai_kd.bundle.distil_training._without", lambda override, network: dict(override))
    teacher = file_of_unet(tmp_path / "wider.pt", channels=[16, 48])
    with pytest.raises(ValueError, match=r"must train the student of [\d,]+ parameters, but got UNet of"):
        distil(
            str(tmp_path / "teacher"),
            output=str(tmp_path / "out"),
            override={"network_def::channels": [16, 48]},
            checkpoint=teacher,
        )


def test_rank_is_that_of_torchrun(monkeypatch):
    assert rank() == 0
    monkeypatch.setenv("RANK", "3")
    assert rank() == 3
