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

"""Facts in a file of weights: read back, invisible to whoever loads the weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from monai_kd.networks.load_weights import load_weights
from monai_kd.networks.weights_facts import facts_of, read_facts, with_facts

FACTS = {"image_size": [96, 96], "window": [40.0, 400.0], "classes": ["liver"], "score": 0.8}


def network():
    return nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))


@pytest.mark.parametrize("wrap", [lambda weights: weights, lambda weights: {"model": weights, "epoch": 3}])
def test_are_read_back_and_hinder_nobody(tmp_path, wrap):
    trained, other = network(), network()
    torch.save(wrap(with_facts(trained.state_dict(), FACTS)), tmp_path / "model.pt")
    assert read_facts(tmp_path / "model.pt") == FACTS
    load_weights(other, tmp_path / "model.pt")
    assert torch.equal(other[0].weight, trained[0].weight)
    assert list(trained.state_dict()) == list(other.state_dict())


def test_none():
    assert facts_of(network().state_dict()) == {}


def test_plain_dictionary():
    with pytest.raises(TypeError, match=r"`state_dict` must come from `network.state_dict\(\)`, but got dict"):
        with_facts({"a": torch.zeros(1)}, FACTS)
