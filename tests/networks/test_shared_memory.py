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

import torch
from torch import nn

from monai_kd.networks.shared_memory import named_tensors, numbered, shared_memory


def found(one: torch.Tensor, other: torch.Tensor) -> bool:
    return shared_memory({"one": one}, {"other": other}) == ("one", "other")


class TestShared:
    def test_the_same_parameter(self):
        weight = nn.Parameter(torch.zeros(3))
        assert found(weight, weight)

    def test_another_parameter_on_the_same_memory(self):
        weight = nn.Parameter(torch.zeros(3))
        assert found(weight, nn.Parameter(weight.data))

    def test_views_of_one_storage_that_overlap(self):
        flat = torch.zeros(10)
        assert found(flat[2:6], flat[5:])
        assert found(flat[5:], flat[2:6])
        assert found(flat[:6].view(2, 3), flat[4:6])

    def test_views_of_other_types(self):
        flat = torch.zeros(4)
        assert found(flat, flat.view(torch.int32)[3:])

    def test_columns_that_overlap(self):
        matrix = torch.zeros(4, 6)
        assert found(matrix[:, :3], matrix[:, 2:])

    def test_tensors_over_one_array(self):
        array = torch.zeros(5).numpy()
        assert found(torch.from_numpy(array), torch.from_numpy(array)[4:])

    def test_assigned_weights(self):
        large, small = nn.BatchNorm2d(2), nn.BatchNorm2d(2)
        small.load_state_dict(large.state_dict(), assign=True)
        assert small.weight is not large.weight
        assert shared_memory(named_tensors(large), named_tensors(small)) is not None

    def test_behind_many_others(self):
        flat, others = torch.zeros(100), numbered(torch.zeros(3) for _ in range(50))
        parts = {"apart": torch.zeros(9), "part": flat[98:]}
        assert shared_memory({"whole": flat, **others}, parts) == ("whole", "part")


class TestApart:
    def test_views_of_one_storage_that_do_not_overlap(self):
        flat = torch.zeros(10)
        assert not found(flat[:5], flat[5:])

    def test_columns(self):
        matrix = torch.zeros(4, 6)
        assert not found(matrix[:, :3], matrix[:, 3:])

    def test_copies(self):
        weight = torch.zeros(3)
        assert not found(weight, weight.clone())

    def test_tied_weights_of_one_owner(self):
        tied, other = torch.zeros(3), torch.zeros(3)
        assert shared_memory({"a": tied, "b": tied}, {"c": other, "d": other}) is None

    def test_what_has_no_memory(self):
        empty, lazy = torch.zeros(0), nn.LazyLinear(2)
        meta = torch.zeros(3, device="meta")
        assert not found(empty, empty)
        assert not found(meta, meta)
        assert shared_memory(named_tensors(lazy), named_tensors(lazy)) is None
