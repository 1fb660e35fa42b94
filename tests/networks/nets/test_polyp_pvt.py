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

import copy
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.losses import DiceLoss
from monai.networks import convert_to_onnx
from torch import nn

from monai_kd.handlers import DistillationTerm
from monai_kd.networks import FeatureCapture, Knowledge, Teacher
from monai_kd.networks.nets import PolypPVT
from monai_kd.networks.nets.polyp_pvt import rename_published
from monai_kd.report import network_cost
from tests.networks.published_polyp_pvt import filled, polyp_pvt_shapes, pvt_shapes

pytest.importorskip("transformers")

SCALES = ["scale1", "scale2"]


@pytest.fixture(scope="module")
def network() -> nn.Module:
    """B0 in eval mode, with normalisation that does something; nobody may change it."""
    torch.manual_seed(0)
    network = PolypPVT("b0").eval().requires_grad_(False)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1), nn.init.uniform_(module.running_var, 0.5, 1.5)
    return network


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """As Polyp-PVT's training saves B0."""
    torch.save(filled(polyp_pvt_shapes("b0")), tmp_path / "PolypPVT.pth")
    return tmp_path / "PolypPVT.pth"


# Root mean squares of out_CFM, out_SAM and their sum, by lib/pvt.py and lib/pvtv2.py of huyquoctrinh/KDAS (647d51b, the
# decoder and B2 are those of DengPingFan/Polyp-PVT) in double precision, for the same numbers in the same file.
@pytest.mark.parametrize(
    ("backbone", "released"),
    [
        ("b0", (0.3168337654295871, 2.5007224200262343, 2.5570600856473598)),
        ("b2", (0.27717337221084565, 6.14583172229515, 6.170256191428011)),
    ],
)
def test_published_checkpoint_gives_the_logits_of_the_released_code(
    tmp_path: Path, backbone: str, released: tuple[float, ...]
) -> None:
    torch.save(filled(polyp_pvt_shapes(backbone)), tmp_path / "PolypPVT.pth")
    network = PolypPVT(backbone, weights=tmp_path / "PolypPVT.pth").double().eval()
    image = torch.from_numpy(np.random.RandomState(0).uniform(size=(2, 3, 64, 96)))
    with torch.no_grad(), FeatureCapture(network, SCALES) as capture:
        maps = (network(image), *capture.features.values())
    rms = [tensor.square().mean().sqrt().item() for tensor in maps[1:] + maps[:1]]
    assert rms == pytest.approx(released, rel=1e-9)


@pytest.mark.parametrize(("backbone", "parameters"), [("b2", 25_107_604), ("b0", 3_650_740)])
def test_parameters_of_the_released_code(backbone: str, parameters: int) -> None:
    for in_channels in (1, 3):
        with torch.device("meta"):
            network = PolypPVT(backbone, in_channels=in_channels)
        assert sum(parameter.numel() for parameter in network.parameters()) == parameters


@pytest.mark.parametrize(("backbone", "flops"), [("b2", 21.69e9), ("b0", 3.809e9)])
def test_cost_of_a_frame(backbone: str, flops: float) -> None:
    """methods.md B: 10.84 and 1.90 G multiply-accumulates by the released code."""
    with torch.device("meta"):
        network = PolypPVT(backbone)
    cost = network_cost(network, (1, 3, 352, 352), runs=1, warm_up=0)
    assert cost.flops == pytest.approx(flops, rel=1e-3)
    assert cost.used_parameters == cost.parameters


def test_two_outputs_are_supervised_and_their_sum_predicts(network: nn.Module) -> None:
    image = torch.rand(2, 3, 64, 96)
    with FeatureCapture(network, SCALES) as capture:
        total = network(image)
        assert torch.equal(total, capture["scale1"] + capture["scale2"])
    network.train()
    try:
        outputs = network(image)
    finally:
        network.eval()
    assert [output.shape for output in outputs] == [(2, 1, 64, 96)] * 2
    assert not torch.equal(*outputs)


def test_each_output_trains_what_it_sees() -> None:
    """The first map comes before the detail, so its loss must not reach what finds the detail."""
    network = PolypPVT("b0").train()
    first, second = network(torch.rand(2, 3, 64, 64))
    first.square().sum().backward(retain_graph=True)
    blind = {name.split(".")[0] for name, parameter in network.named_parameters() if parameter.grad is None}
    assert blind == {"identification", "reduce1", "aggregation", "scale2"}
    second.square().sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_learns_one_frame() -> None:
    network = PolypPVT("b0").train()
    label = torch.zeros(2, 1, 64, 64)
    label[:, :, 16:48, 8:40] = 1
    image = label.expand(-1, 3, -1, -1) + 0.1 * torch.randn(2, 3, 64, 64)
    loss, optimizer = DiceLoss(sigmoid=True), torch.optim.AdamW(network.parameters(), lr=1e-3)
    values = []
    for _ in range(8):
        optimizer.zero_grad()
        value = sum(loss(output, label) for output in network(image))
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.7 * values[0]


@pytest.mark.parametrize("size", [(50, 70), (33, 64), (352, 31), (7, 20), (1, 1)])
def test_other_sizes_are_padded_and_cropped(network: nn.Module, size: tuple[int, int]) -> None:
    image = torch.rand(1, 3, *size)
    rows = torch.arange((size[0] + 31) // 32 * 32).clamp(max=size[0] - 1)
    columns = torch.arange((size[1] + 31) // 32 * 32).clamp(max=size[1] - 1)
    with FeatureCapture(network, SCALES) as capture:
        logits = network(image)
        assert [tuple(t.shape) for t in (logits, *capture.features.values())] == [(1, 1, *size)] * 3
    padded = network(image[:, :, rows][:, :, :, columns])
    torch.testing.assert_close(logits, padded[:, :, : size[0], : size[1]])


def test_size_of_a_training_frame() -> None:
    network = PolypPVT("b0").train()
    assert network(torch.rand(1, 3, 32, 33))[0].shape == (1, 1, 32, 33)
    assert network(torch.rand(2, 3, 32, 32))[1].shape == (2, 1, 32, 32)
    with pytest.raises(ValueError, match="`image` must be larger than 32 x 32 in a training batch of one, but got"):
        network(torch.rand(1, 3, 32, 20))


def test_exports_pad_and_crop(network: nn.Module, tmp_path: Path) -> None:
    """With another batch and size than those that were exported."""
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    example, path = torch.rand(2, 3, 64, 64), str(tmp_path / "network.onnx")
    traced = torch.jit.trace(network, example)
    axes = {"image": {0: "batch", 2: "height", 3: "width"}}
    convert_to_onnx(
        network, [example], filename=path, input_names=["image"], output_names=["pred"], dynamic_axes=axes, dynamo=False
    )
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for size in ((50, 70), (7, 20), (160, 96)):
        image = torch.rand(1, 3, *size)
        expected = network(image)
        torch.testing.assert_close(traced(image), expected, rtol=0, atol=1e-4)
        exported = torch.from_numpy(session.run(["pred"], {"image": image.numpy()})[0])
        torch.testing.assert_close(exported, expected, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_scales_of_a_compiled_network(network: nn.Module) -> None:
    torch.compiler.reset()
    compiled = torch.compile(copy.deepcopy(network), backend="aot_eager")
    image = torch.rand(2, 3, 50, 70)
    with FeatureCapture(compiled, SCALES) as capture:
        logits = compiled(image)
        torch.testing.assert_close(logits, capture["scale1"] + capture["scale2"])
    torch.testing.assert_close(logits, network(image), rtol=0, atol=1e-4)


def test_both_scales_reach_a_term_while_the_teacher_returns_the_sum(network: nn.Module) -> None:
    """KDAS compares P1 with P1 and P2 with P2; the teacher runs in eval mode."""
    student, teacher = PolypPVT("b0").train(), Teacher(network)
    image = torch.rand(2, 3, 64, 64)
    term = DistillationTerm(
        lambda own, target, label: (own - target).square().mean(), student_layer=SCALES, teacher_layer=SCALES, name="l2"
    )
    with teacher.capture(SCALES), FeatureCapture(student, SCALES) as capture:
        outputs = student(image)
        knowledge = teacher(image)
        value = term(Knowledge(outputs, capture.features), knowledge, None)
    maps = [knowledge.features[scale] for scale in SCALES]
    torch.testing.assert_close(knowledge.logits, maps[0] + maps[1])
    expected = sum((own - target).square().mean() for own, target in zip(outputs, maps, strict=True))
    torch.testing.assert_close(value, expected)
    value.backward()
    assert all(parameter.grad is not None for parameter in student.parameters())


@pytest.mark.parametrize("outputs", ["first", "all"])
def test_terms_without_layers_compare_each_map_with_the_sum(network: nn.Module, outputs: str) -> None:
    """What the docstring warns of: the student's first map, or both, is pulled towards the teacher's sum of two."""
    student, teacher = PolypPVT("b0").train(), Teacher(network)
    image = torch.rand(2, 3, 64, 64)
    maps, knowledge = student(image), teacher(image)
    term = DistillationTerm(lambda own, target, label: (own - target).square().mean(), outputs=outputs, name="l2")
    value = term(Knowledge(maps), knowledge, None)
    compared = maps if outputs == "all" else maps[:1]
    torch.testing.assert_close(value, sum((own - knowledge.logits).square().mean() for own in compared))
    gradients = torch.autograd.grad(value, maps, allow_unused=True)
    assert [gradient is not None for gradient in gradients] == [True, outputs == "all"]


def test_documented_layers(network: nn.Module) -> None:
    layers = [*SCALES, "fusion", "aggregation", *(f"encoder.stages.{index}" for index in range(4))]
    with FeatureCapture(network, layers) as capture:
        network(torch.rand(1, 3, 352, 352))
        shapes = [tuple(capture[layer].shape[1:]) for layer in layers]
    assert shapes == [
        (1, 352, 352),
        (1, 352, 352),
        (32, 44, 44),
        (32, 44, 44),
        (32, 88, 88),
        (64, 44, 44),
        (160, 22, 22),
        (256, 11, 11),
    ]


def test_imagenet_weights_fill_the_encoder_alone(tmp_path: Path) -> None:
    torch.save(filled(pvt_shapes("b0", classes=10)), tmp_path / "pvt_v2_b0.pth")
    torch.manual_seed(1)
    loaded = PolypPVT("b0", in_channels=1, encoder_weights=str(tmp_path / "pvt_v2_b0.pth")).state_dict()
    torch.manual_seed(1)
    random = PolypPVT("b0", in_channels=1).state_dict()
    changed = {name.split(".")[0] for name in loaded if not torch.equal(loaded[name], random[name])}
    assert changed == {"encoder"}


def test_trains_from_scratch_aloud(checkpoint: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="monai_kd"):
        PolypPVT("b0", weights=checkpoint)
        assert caplog.messages == []
        PolypPVT("b0")
    assert caplog.messages == ["PolypPVT b0 trains from scratch unless a checkpoint follows: no weights are given"]


def test_every_published_name_is_known(network: nn.Module) -> None:
    published = polyp_pvt_shapes("b0") | {"CFM.conv4.bn.num_batches_tracked": ()}
    renamed = rename_published({name: torch.empty(shape, device="meta") for name, shape in published.items()})
    own = network.state_dict()
    assert {name for name in own if name not in renamed if not name.endswith("num_batches_tracked")} == set()
    assert {name: value.shape for name, value in renamed.items()} == {name: own[name].shape for name in renamed}


def test_own_names_are_taken_too(network: nn.Module, tmp_path: Path) -> None:
    torch.save(network.state_dict(), tmp_path / "own.pt")
    again = PolypPVT("b0", weights=tmp_path / "own.pt").state_dict()
    assert all(torch.equal(value, again[name]) for name, value in network.state_dict().items())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backbone": "b2"}, r"`weights` must hold a Polyp-PVT with backbone b2 .*but .*differs.*blocks\.2"),
        ({"out_channels": 2}, "`weights` must hold a Polyp-PVT with backbone b0 .*size mismatch for scale1"),
        ({"in_channels": 4}, "`encoder_weights` and `weights` need `in_channels` 1 or 3, but got 4"),
        ({"encoder_weights": "pvt.pth"}, "`encoder_weights` must be None beside `weights`, but got pvt.pth"),
    ],
    ids=["backbone", "classes", "channels", "both"],
)
def test_checkpoint_that_does_not_fit(checkpoint: Path, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=f"(?s){message}"):
        PolypPVT(**({"backbone": "b0", "weights": checkpoint} | arguments))


def test_imagenet_weights_are_no_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    torch.save(filled(pvt_shapes("b0")), tmp_path / "pvt_v2_b0.pth")
    with pytest.raises(ValueError, match=r"`weights` must hold .*\(ImageNet weights are `encoder_weights`\)"):
        PolypPVT("b0", weights=tmp_path / "pvt_v2_b0.pth")
    with pytest.raises(ValueError, match="`encoder_weights` must hold the PVTv2 b0 of its authors"):
        PolypPVT("b0", encoder_weights=checkpoint)
    with pytest.raises(FileNotFoundError, match="`weights` must be a local file with a Polyp-PVT"):
        PolypPVT("b0", weights=tmp_path / "nowhere.pth")
