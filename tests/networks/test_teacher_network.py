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

"""A team is scored as a network."""

from __future__ import annotations

import torch
from torch import nn

from monai_kd.networks import Teacher, TeacherNetwork, TeacherTeam
from monai_kd.networks.weights_checksum import weights_checksum


def layer(seed: int) -> nn.Conv2d:
    torch.manual_seed(seed)
    return nn.Conv2d(1, 3, 1)


def test_logits_are_those_of_the_mean_probability():
    image = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    network = TeacherNetwork(TeacherTeam([Teacher(layer(0)), Teacher(layer(1))]))
    mean = (layer(0)(image).softmax(1) + layer(1)(image).softmax(1)) / 2
    torch.testing.assert_close(network(image).softmax(1), mean)
    assert not list(network.parameters())


def test_checksum_is_that_of_the_weights_of_all():
    checksums = {
        weights_checksum(TeacherNetwork(TeacherTeam([Teacher(layer(one)), Teacher(layer(other))])))
        for one, other in ((0, 1), (0, 2), (2, 1), (0, 1))
    }
    assert len(checksums) == 3
    assert weights_checksum(TeacherNetwork(Teacher(layer(0)))) == weights_checksum(layer(0))


def test_moves_with_its_teacher():
    network = TeacherNetwork(Teacher(layer(0)))
    assert network.to("meta") is network
    assert next(network.teacher.parameters()).is_meta
