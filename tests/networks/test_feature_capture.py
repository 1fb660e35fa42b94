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

"""What a capture records, what it refuses, and what it leaves behind."""

from __future__ import annotations

import copy
import pickle
import re
import weakref
from typing import Any

import pytest
import torch
from monai.data import MetaTensor
from monai.networks.nets import UNet
from torch import nn
from torch.nn import functional as F

from monai_kd.networks import FeatureCapture
from monai_kd.networks.feature_capture import unwrap
from tests.handlers.engine_case import hooks_of


def make_unet(**kwargs: Any) -> UNet:
    """MONAI's network, whose layers are nested with dotted names."""
    return UNet(
        **({"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "channels": (2, 4, 8), "strides": (2, 2)} | kwargs)
    )


class Chain(nn.Module):
    """Batch norm before an activation that rewrites its input."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Conv2d(3, 2, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.relu(self.norm(self.conv(image))))


@pytest.fixture
def image() -> torch.Tensor:
    return torch.randn(2, 1, 16, 16)


class Twins(nn.Identity):
    """Returns its input twice."""

    def forward(self, feature: torch.Tensor) -> list[torch.Tensor]:
        return [feature, feature]


def refuses(forward: Any, image: torch.Tensor, layer: str, message: str) -> None:
    """Whether the layers of the chain, called in another way, give no map but an error that says why."""
    network = Chain()
    network.twins = Twins()
    with FeatureCapture(network, [layer]) as capture:
        forward(network, image)
        for ask in (lambda: capture[layer], lambda: capture.features):
            with pytest.raises(RuntimeError, match=message):
                ask()


class TestRecords:
    def test_what_layers_return(self, image):
        network = make_unet().eval()
        first = network.model[0](image)
        inner = network.model[1].submodule[0](first)
        with FeatureCapture(network, ["model.0", "model.1.submodule.0"]) as capture:
            network(image)
            assert list(capture.features) == ["model.0", "model.1.submodule.0"]
            assert torch.equal(capture["model.0"], first)
            assert torch.equal(capture["model.1.submodule.0"], inner)
            assert capture["model.1.submodule.0"].shape == (2, 4, 4, 4)

    def test_in_three_dimensions(self):
        network = make_unet(spatial_dims=3)
        with FeatureCapture(network, "model.0") as capture:
            network(torch.zeros(1, 1, 8, 8, 8))
            assert capture["model.0"].shape == (1, 2, 4, 4, 4)

    def test_with_the_gradient_to_the_network(self, image):
        network = Chain()
        with FeatureCapture(network, ["norm"]) as capture:
            network(image)
            capture["norm"].square().sum().backward()
        assert network.conv.weight.grad.abs().sum() > 0
        assert network.head.weight.grad is None

    def test_a_metatensor_as_it_is(self, image):
        network = Chain()
        with FeatureCapture(network, ["conv"]) as capture:
            logits = network(MetaTensor(image))
            (gradient,) = torch.autograd.grad(logits.as_tensor().sum(), capture["conv"])  # a copy would have none
        assert gradient.abs().sum() > 0

    def test_the_pass_since_clear_and_only_while_enabled(self, image):
        network = Chain().eval()
        expected = network.conv(2 * image)
        with FeatureCapture(network, ["conv"]) as capture:
            network(image)
            capture.clear()
            network(2 * image)
            assert torch.equal(capture["conv"], expected)
            capture.enabled = False
            network(image)
            assert torch.equal(capture["conv"], expected)

    def test_a_layer_named_twice_once(self, image):
        network = Chain()
        with FeatureCapture(network, ["conv", "conv"]) as capture:
            network(image)
            assert list(capture.features) == ["conv"]
            assert hooks_of(network) == 1


class TestCompiled:
    @pytest.fixture(autouse=True)
    def _fresh_compiler(self):
        torch.compiler.reset()
        yield
        torch.compiler.reset()

    @pytest.mark.parametrize("backend", ["eager", "aot_eager"])
    @pytest.mark.parametrize("called_before", [False, True])
    def test_network(self, image, backend, called_before):
        network = Chain().eval()
        network.relu.inplace = False  # switching it would compile the network anew, whatever becomes of hooks
        compiled = torch.compile(network, backend=backend)
        if called_before:
            compiled(image)
        with FeatureCapture(compiled, ["norm"]) as capture:
            compiled(image)
            recorded = capture["norm"]
        assert torch.equal(recorded, network.norm(network.conv(image)))

    def test_in_place(self, image):
        network = Chain().eval()
        network.relu.inplace = False
        network.compile(backend="eager")
        network(image)
        with FeatureCapture(network, ["norm"]) as capture:
            network(image)
            recorded = capture["norm"]
        assert torch.equal(recorded, network.norm(network.conv(image)))


class TestWrapped:
    def test_networks_are_looked_into(self):
        network = Chain()
        compiled = torch.compile(network, backend="eager")
        assert unwrap(network) is unwrap(compiled) is unwrap(nn.DataParallel(network)) is network
        assert unwrap(nn.DataParallel(compiled)) is network
        with FeatureCapture(nn.DataParallel(network), ["conv"]) as capture:
            assert capture.network is network


class TestInplace:
    def test_activations_do_not_rewrite_a_map(self, image):
        network = Chain().train()
        expected = network.norm(network.conv(image))
        assert expected.min() < 0
        with FeatureCapture(network, ["norm"]) as capture:
            network(image)
            assert torch.equal(capture["norm"], expected)
            assert network.relu.inplace is False
        assert network.relu.inplace is True

    def test_without_a_layer_nothing_is_switched(self):
        network = Chain()
        with FeatureCapture(network, []) as capture:
            assert network.relu.inplace
            assert capture.features == {}

    @pytest.mark.parametrize(
        "operation", [lambda x: F.relu(x, inplace=True), lambda x: x.add_(1.0), lambda x: x.mul_(2)]
    )
    def test_other_operations_are_noticed(self, image, operation):
        def forward(network: Chain, image: torch.Tensor) -> torch.Tensor:
            feature = network.norm(network.conv(image))
            operation(feature)
            return network.head(feature)

        refuses(forward, image, "norm", "the map of layer `norm` was changed in place after the layer returned it; cap")

    @pytest.mark.parametrize("first", [0, 1])
    def test_activations_wait_for_the_last_of_several_captures(self, image, first):
        network = Chain().train()
        captures = [FeatureCapture(network, ["norm"]), FeatureCapture(network, ["norm"])]
        captures.pop(first).remove()
        (last,) = captures
        network(image)
        assert last["norm"].min() < 0
        assert network.relu.inplace is False
        last.remove()
        assert network.relu.inplace is True


class TestLeavesBehind:
    def test_nothing(self, image):
        network = Chain()
        capture = FeatureCapture(network, ["conv", "norm"])
        network(image)
        recorded = weakref.ref(capture["conv"])
        assert hooks_of(network) == 2
        assert not capture.removed
        capture.remove()
        capture.remove()
        assert capture.removed
        assert hooks_of(network) == 0
        assert recorded() is None

    def test_no_graph_after_clear(self, image):
        network = Chain()
        capture = FeatureCapture(network, ["conv"])
        logits = network(image)
        recorded = weakref.ref(capture["conv"])
        del logits
        assert recorded() is not None
        capture.clear()
        assert recorded() is None

    def test_a_network_that_copies_and_pickles(self, image):
        network = Chain().eval()
        with FeatureCapture(network, ["conv"]) as capture:
            for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
                assert torch.equal(other(image), network(image))
                capture.clear()
                other(image)
                with pytest.raises(RuntimeError, match="was not captured"):
                    capture["conv"]  # the copy records for itself

    def test_the_network_the_same(self, image):
        network = Chain().eval()
        expected, keys = network(image), list(network.state_dict())
        with FeatureCapture(network, ["conv", "norm", "relu", "head"]):
            assert torch.equal(network(image), expected)
            assert list(network.state_dict()) == keys


class TestRefuses:
    def test_unknown_layers_with_the_five_nearest_names(self):
        with pytest.raises(
            ValueError, match="`layer` must be a module of UNet, but got `model.1.submodul.0`"
        ) as caught:
            FeatureCapture(make_unet(), ["model.0", "model.1.submodul.0"])
        names = re.findall(r"`([\w.]+)`", str(caught.value).split("nearest names are")[1])
        assert len(names) == 5
        assert names[0] == "model.1.submodule.0"

    @pytest.mark.parametrize("layer", ["", "Conv", "0"])
    def test_names_far_from_any(self, layer):
        network = Chain()
        with pytest.raises(ValueError, match=f"but got `{layer}`; the nearest names are `"):
            FeatureCapture(network, [layer])
        assert hooks_of(network) == 0
        assert network.relu.inplace

    def test_torchscript(self):
        scripted = torch.jit.script(nn.Sequential(nn.Conv2d(1, 2, 1)))
        with pytest.raises(
            ValueError, match="layer `0` cannot be captured: a TorchScript network gives its logits only"
        ):
            FeatureCapture(scripted, ["0"])

    @pytest.mark.parametrize(
        ("forward", "layer", "message"),
        [
            (
                lambda network, image: network.head(network.conv(image)),
                "norm",
                "layer `norm` was not captured in this forward pass: the network did not call it, or",
            ),
            (
                lambda network, image: network.head(network.relu(network.norm(network.relu(network.conv(image))))),
                "relu",
                "layer `relu` must be called once per forward pass, but got 2 calls; choose a layer that is not sha",
            ),
            (
                lambda network, image: network.head(network.twins(network.conv(image))[0]),
                "twins",
                "layer `twins` must return one tensor, but got list; choose a layer inside it",
            ),
        ],
    )
    def test_a_layer_that_is_not_called_or_twice_or_gives_several_tensors(self, image, forward, layer, message):
        refuses(forward, image, layer, message)
