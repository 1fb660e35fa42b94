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

"""Laws that hold for every network of monai_kd.networks.nets that segments slices or frames."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from monai.networks import convert_to_onnx, convert_to_torchscript
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from monai_kd.networks.nets import (
    DeepLabV3Plus,
    ENet,
    EPSAUNet,
    ERFNet,
    ESPNet,
    MobileNetV2Seg,
    PolypPVT,
    PSPNet,
    RAUNet,
    ResNet18Seg,
    SeparableEPSAUNet,
    TransUNet,
)


def enet_without_its_fifth(network: nn.Module) -> nn.Module:
    """The block that EMKD's ENet builds and never calls becomes the identity: an empty branch, and a slope of 1."""
    fifth = network.encoder.stage3[4]
    last_norm = fifth.branch[-1].adn.N
    nn.init.zeros_(last_norm.weight), nn.init.zeros_(last_norm.bias), nn.init.ones_(fifth.act.weight)
    return network


class Net(NamedTuple):
    """How a network is built and what it asks for."""

    build: Callable[..., nn.Module]
    divisor: int  # of H and W; 1: any size is taken
    scripts: bool = True  # compiles in TorchScript; if not, it is traced
    smallest: int = 1  # H
    repeats: bool = True  # a single channel becomes three
    student: bool = True  # small enough to be exported
    shipped: bool = False  # the student of a bundle


class Published(NamedTuple):
    """What is known of a network of EMKD, and from where."""

    parameters: int  # of the released code of EMKD (943c9dc), 2 classes
    paper_parameters: float | None  # EMKD, Table II; None: not in it
    flops: float  # 2 x multiply-accumulate at 1 x 1 x 384 x 384, ours
    paper_flops: float | None  # EMKD, Table II
    features: dict[str, tuple[int, ...]]  # low and high of EMKD for an input of 384 x 384
    unused: str  # a block that the released code builds and does not call
    as_released: Callable[[nn.Module], nn.Module]
    released_rms: tuple[float, float, float]  # low, high and log-probabilities of the released code, see `numbered`
    left_out: int = 0  # parameters that the released code builds and does not call, and ours does not build


NETS = {
    "ENet": Net(ENet, divisor=8, shipped=True),
    "ERFNet": Net(ERFNet, divisor=8, repeats=False),
    "ESPNet": Net(ESPNet, divisor=8),
    "MobileNetV2Seg": Net(MobileNetV2Seg, divisor=1),
    "ResNet18Seg": Net(ResNet18Seg, divisor=1),
    "RAUNet": Net(RAUNet, divisor=32, student=False),
    "PSPNet": Net(PSPNet, divisor=1, student=False),
    "DeepLabV3Plus": Net(DeepLabV3Plus, divisor=1, repeats=False, student=False),
    "PolypPVT": Net(partial(PolypPVT, "b0"), divisor=1, scripts=False, shipped=True),
    "TransUNet": Net(partial(TransUNet, "tiny", img_size=96), divisor=16, smallest=32, student=False),
    "EPSAUNet": Net(EPSAUNet, divisor=16),
    "SeparableEPSAUNet": Net(SeparableEPSAUNet, divisor=16, shipped=True),
}

EMKD = {
    "ENet": Published(
        parameters=353_761,
        paper_parameters=0.353e6,
        flops=2.128e9,
        paper_flops=2.03e9,
        features={"encoder.stem": (1, 16, 192, 192), "encoder.stage3": (1, 128, 48, 48)},
        unused="encoder.stage3.4",
        as_released=enet_without_its_fifth,
        released_rms=(0.46649174945644245, 2.0984899316944388, 0.7048314999698992),
    ),
    "ERFNet": Published(
        parameters=2_063_130,
        paper_parameters=None,
        flops=14.869e9,
        paper_flops=None,
        features={"encoder.stem": (1, 16, 192, 192), "encoder.stage2": (1, 128, 48, 48)},
        unused="none",
        as_released=lambda network: network,
        released_rms=(0.4926652106461465, 0.8598038347862944, 0.7832259142287165),
        left_out=258,  # the classifier of the encoder
    ),
    "ESPNet": Published(
        parameters=183_725,
        paper_parameters=0.183e6,
        flops=1.229e9,
        paper_flops=1.23e9,
        features={"encoder.stem": (1, 16, 192, 192), "encoder.adn3": (1, 256, 48, 48)},
        unused="none",
        as_released=lambda network: network,
        released_rms=(0.368329700745611, 0.6755123612323461, 0.07455596729414506),
    ),
    "MobileNetV2Seg": Published(
        parameters=2_228_996,
        paper_parameters=2.2e6,
        flops=19.141e9,
        paper_flops=19.14e9,
        features={"encoder.stem": (1, 32, 192, 192), "encoder.last": (1, 1280, 48, 48)},
        unused="none",
        as_released=lambda network: network,
        released_rms=(0.3369334517663163, 0.25832566597492956, 0.3647025063410429),
        left_out=2562,  # the classifier of images
    ),
    "ResNet18Seg": Published(
        parameters=11_177_538,
        paper_parameters=11.2e6,
        flops=10.660e9,
        paper_flops=10.66e9,
        features={"encoder.stem": (1, 64, 192, 192), "encoder.stage2": (1, 128, 48, 48)},
        unused="none",
        as_released=lambda network: network,
        released_rms=(0.37655713800640606, 0.908120440970412, 1.1735152757603498),
    ),
    "RAUNet": Published(
        parameters=22_143_394,
        paper_parameters=22.1e6,
        flops=26.462e9,
        paper_flops=24.81e9,
        features={"encoder.stem": (1, 64, 192, 192), "encoder.stage2": (1, 128, 48, 48)},
        unused="none",
        as_released=lambda network: network,
        released_rms=(0.37655713800640606, 1.2330686449291324, 0.7057470683882354),
    ),
    "PSPNet": Published(
        parameters=46_706_626,
        paper_parameters=46.7e6,
        flops=207.299e9,
        paper_flops=207.18e9,
        features={"encoder.stem": (1, 64, 192, 192), "encoder.stage4": (1, 2048, 48, 48)},
        unused="none",
        as_released=lambda network: network,
        released_rms=(0.4532681242726478, 0.8435179740158, 0.5520841846237091),
    ),
    "DeepLabV3Plus": Published(
        parameters=56_795_962,
        paper_parameters=56.8e6,
        flops=272.478e9,
        paper_flops=272.48e9,
        features={"encoder.stem": (1, 32, 192, 192), "encoder.exit": (1, 2048, 48, 48)},
        unused="none",
        as_released=lambda network: network,
        released_rms=(0.4615709340341425, 0.2956248084305017, 0.199196789272452),
        left_out=2_049_000,  # the classifier of Xception
    ),
}


def numbered(network: nn.Module, image: torch.Tensor, unused: str) -> nn.Module:
    """Fills the layers of a network, in the order they are called, from numpy's frozen generator: seed = position."""
    called: list[nn.Module] = []
    skipped = {id(module) for name, module in network.named_modules() if name.startswith(unused)}
    leaves = [m for m in network.modules() if not list(m.children()) and list(m.parameters()) and id(m) not in skipped]
    hooks = [leaf.register_forward_hook(lambda module, *_: called.append(module)) for leaf in leaves]
    network(image)
    for hook in hooks:
        hook.remove()
    for seed, leaf in enumerate(called):
        random = np.random.RandomState(seed)
        draw = {name: random.uniform(-1, 1, tensor.shape) for name, tensor in sorted(leaf.state_dict().items())}
        for name, tensor in leaf.state_dict().items():
            spread = (3 / tensor[0].numel()) ** 0.5 if tensor.ndim > 1 else 0.2
            centre = float(name == "running_var" or (name == "weight" and isinstance(leaf, nn.BatchNorm2d)))
            tensor.copy_(torch.from_numpy(np.asarray(centre + spread * draw[name])))
    return network


def outputs(network: nn.Module, image: torch.Tensor) -> list[torch.Tensor]:
    """All logits: those of every scale where several are supervised in training."""
    logits = network(image)
    return [logits] if isinstance(logits, torch.Tensor) else logits


@pytest.fixture(scope="module", params=list(NETS))
def net(request: pytest.FixtureRequest) -> Net:
    return NETS[request.param]


@pytest.fixture(scope="module")
def network(net: Net) -> nn.Module:
    """In eval, with normalisation that does something; nobody may change it."""
    torch.manual_seed(0)
    network = net.build(in_channels=1, out_channels=3).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1), nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network.requires_grad_(False)


@pytest.fixture(scope="module")
def skeleton(net: Net) -> nn.Module:
    """Shapes without values."""
    with torch.device("meta"):
        return net.build(in_channels=1, out_channels=2).eval()


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    """Two slices of noise, not of constant air, where rounding would decide what ENet's pooling calls the maximum."""
    return torch.rand(2, 1, 64, 96, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", EMKD)
def test_values_of_the_released_code(name: str) -> None:
    """The numbers were computed by the files of EMKD's networks at 943c9dc, filled in the same way."""
    net, published = NETS[name], EMKD[name]
    image = torch.from_numpy(np.random.RandomState(0).uniform(size=(2, 1, 64, 96)))
    features = []
    with torch.no_grad():
        network = published.as_released(numbered(net.build().double().eval(), image, published.unused))
        for path in published.features:
            network.get_submodule(path).register_forward_hook(lambda *hooked: features.append(hooked[2]))
        logits = network(image)
    if net.build is RAUNet:  # returns log-probabilities in the released code
        logits = logits.log_softmax(1)
    rms = [tensor.square().mean().sqrt().item() for tensor in (*features, logits)]
    assert rms == pytest.approx(published.released_rms, rel=1e-9)


@pytest.mark.parametrize("name", EMKD)
@pytest.mark.parametrize("in_channels", [1, 3])
def test_parameters_of_the_paper(name: str, in_channels: int) -> None:
    if in_channels == 3 and not NETS[name].repeats:
        pytest.skip("published for one channel")
    with torch.device("meta"):
        network = NETS[name].build(in_channels=in_channels)
    parameters = sum(parameter.numel() for parameter in network.parameters()) + EMKD[name].left_out
    assert parameters == EMKD[name].parameters
    if EMKD[name].paper_parameters is not None:
        assert parameters == pytest.approx(EMKD[name].paper_parameters, rel=0.015)


@pytest.mark.parametrize("name", EMKD)
def test_flops_of_the_paper(name: str) -> None:
    with torch.device("meta"):
        network, image = NETS[name].build().eval(), torch.zeros(1, 1, 384, 384)
    with FlopCounterMode(display=False) as counter:
        network(image)
    assert counter.get_total_flops() == pytest.approx(EMKD[name].flops, rel=1e-3)
    if EMKD[name].paper_flops is not None:
        assert counter.get_total_flops() == pytest.approx(EMKD[name].paper_flops, rel=0.1)


@pytest.mark.parametrize("name", EMKD)
def test_feature_layers_of_emkd(name: str) -> None:
    with torch.device("meta"):
        network, image = NETS[name].build().eval(), torch.zeros(1, 1, 384, 384)
    shapes = {}
    for path in EMKD[name].features:
        network.get_submodule(path).register_forward_hook(
            lambda module, inputs, output, path=path: shapes.update({path: tuple(output.shape)})
        )
    network(image)
    assert shapes == EMKD[name].features


def test_no_output_of_a_layer_is_rewritten(net: Net, network: nn.Module, image: torch.Tensor) -> None:
    kept = []

    def keep(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: object) -> None:
        if isinstance(output, torch.Tensor):
            kept.append((module, output, output._version))

    hooks = [module.register_forward_hook(keep) for module in network.modules()]
    network(image)
    for hook in hooks:
        hook.remove()
    assert len(kept) > 50
    assert [type(module) for module, output, version in kept if output._version != version] == []


def test_gradient_reaches_every_parameter(net: Net) -> None:
    torch.manual_seed(0)
    network = net.build(in_channels=1).train()
    sum(logits.square().sum() for logits in outputs(network, torch.rand(4, 1, 64, 64))).backward()
    assert [name for name, parameter in network.named_parameters() if parameter.grad is None] == []
    # in exact arithmetic a bias has no gradient in front of a batch normalisation, or in a key of attention
    dead = [name for name, p in network.named_parameters() if p.grad.abs().max() == 0 and not name.endswith("bias")]
    assert dead == []


def test_batch_of_one_trains(net: Net) -> None:
    torch.manual_seed(0)
    network = net.build(in_channels=1).train()
    sum(logits.square().sum() for logits in outputs(network, torch.rand(1, 1, 64, 64))).backward()
    assert all(parameter.grad.isfinite().all() for parameter in network.parameters())


def test_same_seed_same_weights(net: Net) -> None:
    def weights(seed: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(seed)
        return net.build().state_dict()

    first, again, other = weights(1), weights(1), weights(2)
    stem = next(iter(first))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first[stem], other[stem])


def test_images_of_a_batch_do_not_mix(network: nn.Module, image: torch.Tensor) -> None:
    assert_same(network(image), torch.cat([network(image[:1]), network(image[1:])]), 1e-5)


def test_single_channel_is_three_equal_ones(net: Net, network: nn.Module, image: torch.Tensor) -> None:
    if not net.repeats:
        pytest.skip("takes a single channel as it is")
    colour = net.build(in_channels=3, out_channels=3).eval()
    colour.load_state_dict(network.state_dict())
    assert_same(network(image), colour(image.expand(-1, 3, -1, -1)), 1e-5)


def test_other_numbers_of_channels(net: Net) -> None:
    logits = net.build(in_channels=4, out_channels=5).eval()(torch.rand(1, 4, 64, 64))
    assert logits.shape == (1, 5, 64, 64)


def distance(logits: torch.Tensor, expected: torch.Tensor) -> float:
    """Relative, over the whole map: rounding may move single maxima of ENet's pooling to a neighbour."""
    assert logits.isfinite().all()
    return ((logits.float() - expected).norm() / expected.norm()).item()


def assert_same(logits: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    """Up to rounding, which grows with the range of the logits: from 0.1 to 250 in these untrained networks."""
    spread = (expected.max() - expected.min()).item()
    torch.testing.assert_close(logits, expected, rtol=0, atol=tolerance * spread)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float16, 0.05), (torch.bfloat16, 0.2)])
def test_half_precision(
    net: Net, network: nn.Module, image: torch.Tensor, dtype: torch.dtype, tolerance: float
) -> None:
    if dtype is torch.float16 and not net.student:
        pytest.skip("a teacher: a CPU takes 10 s for its convolutions in half precision, and bfloat16 is tested")
    half = copy.deepcopy(network).to(dtype)(image.to(dtype))
    assert half.dtype is dtype
    assert distance(half, network(image)) < tolerance


def test_autocast(network: nn.Module, image: torch.Tensor) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        half = network(image)
    assert half.dtype is torch.bfloat16
    assert distance(half, network(image)) < 0.2


def test_channels_last(network: nn.Module, image: torch.Tensor) -> None:
    last = copy.deepcopy(network).to(memory_format=torch.channels_last)
    logits = last(image.to(memory_format=torch.channels_last))
    assert_same(logits, network(image), 1e-4)


def test_deterministic_algorithms(network: nn.Module, image: torch.Tensor) -> None:
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        assert torch.equal(network(image), network(image))
    finally:
        torch.use_deterministic_algorithms(before)


def test_meta_tensor(network: nn.Module, image: torch.Tensor) -> None:
    logits = network(MetaTensor(image))
    assert isinstance(logits, MetaTensor)
    assert torch.equal(logits.as_tensor(), network(image))


@settings(max_examples=5, deadline=None)
@given(st.integers(1, 3), st.integers(1, 200), st.integers(1, 200))
def test_logits_have_the_size_of_the_image(net: Net, skeleton: nn.Module, batch: int, height: int, width: int) -> None:
    fits = (batch, 1, max(height * net.divisor, net.smallest), width * net.divisor)
    assert skeleton(torch.zeros(fits, device="meta")).shape == (batch, 2, *fits[2:])
    if height % net.divisor or width % net.divisor:
        with pytest.raises(ValueError, match=f"divisible by {net.divisor}, but got {height} and {width}; pad by"):
            skeleton(torch.zeros(batch, 1, height, width, device="meta"))


@pytest.mark.parametrize("trace", [False, True])
def test_torchscript(net: Net, network: nn.Module, image: torch.Tensor, trace: bool, tmp_path) -> None:
    if not trace and not net.scripts:
        pytest.skip("does not compile in TorchScript")
    path = tmp_path / "network.ts"
    convert_to_torchscript(network, filename_or_obj=str(path), inputs=[image], use_trace=trace)
    scripted = torch.jit.load(str(path))
    for size in (image, image[:1], image[:, :, :32, :64]):
        assert_same(scripted(size), network(size), 1e-4)


def test_torchscript_keeps_the_check(net: Net, network: nn.Module) -> None:
    if net.divisor == 1 or not net.scripts:
        pytest.skip("takes any size, or does not compile in TorchScript")
    scripted = torch.jit.script(network)
    with pytest.raises(torch.jit.Error, match=f"divisible by {net.divisor}, but got 60 and 64"):
        scripted(torch.zeros(1, 1, 60, 64))


def test_compile(network: nn.Module, image: torch.Tensor) -> None:
    torch.compiler.reset()
    compiled = torch.compile(copy.deepcopy(network), backend="aot_eager", fullgraph=True)
    assert_same(compiled(image), network(image), 1e-4)


def test_compile_keeps_the_check(net: Net, network: nn.Module) -> None:
    if net.divisor == 1:
        pytest.skip("takes any size")
    torch.compiler.reset()
    compiled = torch.compile(copy.deepcopy(network), backend="aot_eager")
    with pytest.raises(ValueError, match=f"divisible by {net.divisor}, but got 60 and 64"):
        compiled(torch.zeros(1, 1, 60, 64))


@pytest.mark.parametrize("dynamo", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_onnx(net: Net, network: nn.Module, image: torch.Tensor, dynamo: bool, tmp_path) -> None:
    if not net.student:
        pytest.skip("a teacher, which is not exported")
    if dynamo and not net.shipped:
        pytest.skip("no student of a bundle: this exporter takes 10 s for each")
    for module in ("onnx", "onnxscript"):
        pytest.importorskip(module)
    runtime = pytest.importorskip("onnxruntime")
    path = str(tmp_path / "network.onnx")
    convert_to_onnx(
        network,
        [image],  # two of them: torch.export would take a batch of one for a constant
        filename=path,
        input_names=["image"],
        output_names=["pred"],
        dynamic_axes={"image": {0: "batch", 2: "height", 3: "width"}},
        dynamo=dynamo,
    )
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for size in (image, image[:1], image[:, :, :32, :64]):
        logits = torch.from_numpy(session.run(["pred"], {"image": size.numpy()})[0])
        assert_same(logits, network(size), 1e-4)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 64, 64), r"`image` must be \(B, 1, H, W\), but got \[1, 3, 64, 64\]; set `in_channels`"),
        ((1, 1, 64, 64, 64), r"`image` must be \(B, 1, H, W\), but got \[1, 1, 64, 64, 64\].*SliceInferer"),
        ((1, 64, 64), r"`image` must be \(B, 1, H, W\), but got \[1, 64, 64\]"),
    ],
)
def test_image_must_fit(network: nn.Module, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        network(torch.zeros(shape))


@pytest.mark.parametrize("argument", ["in_channels", "out_channels"])
def test_channels_must_be_positive(net: Net, argument: str) -> None:
    with pytest.raises(ValueError, match=f"`{argument}` must be 1 or more, but got 0"):
        net.build(**{argument: 0})
