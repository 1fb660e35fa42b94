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

from typing import Any

import pytest
import torch
from monai.networks.nets import UNet
from torch import nn

from monai_kd.networks import Teacher
from monai_kd.networks.load_weights import load_weights


def build(**options: Any) -> UNet:
    return UNet(2, 1, 2, (4, 8), (2,), **options)


def loaded(path: Any, part: bool = False) -> nn.Module:
    """A network that reads its weights as it is built, or those of one layer only."""
    network = build()
    load_weights(network, path)
    if part:
        network.model[0].conv.reset_parameters()
    return network


class TestRefused:
    @pytest.mark.parametrize("kind", [build, lambda: build(num_res_units=2), lambda: build().eval()])
    def test_random_weights(self, kind):
        with pytest.raises(ValueError, match="`checkpoint` must be given for a `network` that is built with random w"):
            Teacher(kind)

    def test_a_class(self):
        class Head(nn.Conv2d):
            def __init__(self) -> None:
                super().__init__(1, 2, 1)
                nn.init.zeros_(self.bias)

        with pytest.raises(ValueError, match="1 of 2 parameters of Head are random .`weight`."):
            Teacher(Head)

    def test_trained_weights_but_for_a_layer(self, tmp_path):
        torch.save(build().state_dict(), tmp_path / "model.pt")
        with pytest.raises(ValueError, match=r"2 of 8 parameters of UNet are random \(`model.0.conv.weight`\)"):
            Teacher(lambda: loaded(tmp_path / "model.pt", part=True))

    def test_lazy_weights(self):
        with pytest.raises(ValueError, match="2 of 2 parameters of LazyConv2d are random"):
            Teacher(lambda: nn.LazyConv2d(2, 1))


class TestAccepted:
    def test_a_module(self):
        Teacher(build())

    def test_weights_that_it_reads_itself(self, tmp_path):
        network = build().eval()
        torch.save(network.state_dict(), tmp_path / "model.pt")
        image = torch.randn(1, 1, 8, 8)
        assert torch.equal(Teacher(lambda: loaded(tmp_path / "model.pt"))(image).logits, network(image))

    def test_a_module_that_is_returned(self):
        network = build()
        assert Teacher(lambda: network).network is network

    def test_no_weights(self):
        Teacher(nn.Identity)


def test_random_state_is_left_alone():
    state = torch.get_rng_state()
    with pytest.raises(ValueError, match="`checkpoint` must be given"):
        Teacher(build)
    assert torch.equal(torch.get_rng_state(), state)
