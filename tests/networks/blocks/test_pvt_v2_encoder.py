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

import sys
from pathlib import Path

import pytest
import torch
from monai.utils import OptionalImportError
from torch import nn
from torch.nn import functional as F

from monai_kd.networks.blocks import PvtV2Encoder
from monai_kd.networks.blocks.pvt_v2_encoder import rename_published_pvt
from tests.networks.published_polyp_pvt import DEPTHS, HEADS, REDUCTIONS, filled, pvt_shapes

transformers = pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def published() -> dict[str, torch.Tensor]:
    return filled(pvt_shapes("b0", classes=10))


@pytest.fixture
def path(published: dict[str, torch.Tensor], tmp_path: Path) -> Path:
    torch.save(published, tmp_path / "pvt_v2_b0.pth")
    return tmp_path / "pvt_v2_b0.pth"


class Published:
    """PVTv2 in matrix arithmetic, of the names in its authors' files: Eq. of their paper, no module of anybody."""

    def __init__(self, weights: dict[str, torch.Tensor], backbone: str) -> None:
        self.weights = {name: value.double() for name, value in weights.items()}
        self.backbone = backbone

    def norm(self, name: str, x: torch.Tensor, eps: float) -> torch.Tensor:
        x = x - x.mean(-1, keepdim=True)
        x = x / (x.square().mean(-1, keepdim=True) + eps).sqrt()
        return x * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def conv(self, name: str, x: torch.Tensor, **geometry: int) -> torch.Tensor:
        return F.conv2d(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], **geometry)

    def attention(self, name: str, x: torch.Tensor, size: tuple[int, int], heads: int, reduction: int) -> torch.Tensor:
        batch, length, channels = x.shape
        query = self.linear(f"{name}.q", x)
        if reduction > 1:
            x = self.conv(f"{name}.sr", x.mT.unflatten(2, size), stride=reduction).flatten(2).mT
            x = self.norm(f"{name}.norm", x, eps=1e-5)
        pair = self.linear(f"{name}.kv", x)
        key, value = pair[..., :channels], pair[..., channels:]
        query, key, value = (t.reshape(batch, t.shape[1], heads, -1) for t in (query, key, value))
        score = torch.einsum("bqhc,bkhc->bhqk", query, key) / (channels / heads) ** 0.5
        score = score.exp() / score.exp().sum(-1, keepdim=True)
        mixed = torch.einsum("bhqk,bkhc->bqhc", score, value).reshape(batch, length, channels)
        return self.linear(f"{name}.proj", mixed)

    def feed_forward(self, name: str, x: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
        x = self.linear(f"{name}.fc1", x)
        x = self.conv(f"{name}.dwconv.dwconv", x.mT.unflatten(2, size), padding=1, groups=x.shape[2]).flatten(2).mT
        return self.linear(f"{name}.fc2", x * (1 + torch.erf(x / 2**0.5)) / 2)

    def __call__(self, image: torch.Tensor) -> list[torch.Tensor]:
        x, maps = image, []
        for stage in range(4):
            geometry = {"stride": 4, "padding": 3} if stage == 0 else {"stride": 2, "padding": 1}
            x = self.conv(f"patch_embed{stage + 1}.proj", x, **geometry)
            size = (x.shape[2], x.shape[3])
            x = self.norm(f"patch_embed{stage + 1}.norm", x.flatten(2).mT, eps=1e-5)
            for block in range(DEPTHS[self.backbone][stage]):
                name = f"block{stage + 1}.{block}"
                y = self.norm(f"{name}.norm1", x, eps=1e-6)
                x = x + self.attention(f"{name}.attn", y, size, HEADS[stage], REDUCTIONS[stage])
                x = x + self.feed_forward(f"{name}.mlp", self.norm(f"{name}.norm2", x, eps=1e-6), size)
            x = self.norm(f"norm{stage + 1}", x, eps=1e-6).mT.unflatten(2, size)
            maps.append(x)
        return maps


def test_published_weights_give_the_published_network(published: dict[str, torch.Tensor], path: Path) -> None:
    encoder = PvtV2Encoder("b0")
    encoder.load_imagenet(path)
    image = torch.rand(2, 3, 64, 96, dtype=torch.float64)
    with torch.no_grad():
        maps = encoder.double().eval()(image)
    for ours, theirs in zip(maps, Published(published, "b0")(image), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("backbone", ["b0", "b2"])
def test_every_entry_has_a_published_one(backbone: str) -> None:
    """The other way round, the names of transformers by hand: key and value are one layer in the files."""
    with torch.device("meta"):
        own = {name: tuple(value.shape) for name, value in PvtV2Encoder(backbone).pvt.state_dict().items()}
        published = {name: torch.empty(shape) for name, shape in pvt_shapes(backbone, classes=10).items()}
    assert {name: tuple(value.shape) for name, value in rename_published_pvt(published).items()} == own
    back = {}
    for name in own:
        stage, rest = int(name.split(".")[2]) + 1, name.split(".", 3)[3]
        rest = rest.replace("attention.key", "attn.kv").replace("attention.value", "attn.kv")
        rest = rest.replace("attention.query", "attn.q").replace("attention.spatial_reduction", "attn.sr")
        rest = rest.replace("attention.layer_norm", "attn.norm").replace("attention.", "attn.")
        rest = rest.replace("dense", "fc").replace("layer_norm_", "norm")
        for ours, theirs in (("patch_embedding.layer_", "patch_embed*."), ("patch_embedding", "patch_embed*")):
            rest = rest.replace(ours, theirs)
        rest = rest.replace("blocks", "block*").replace("layer_norm", "norm*")
        back[rest.replace("*", str(stage))] = name
    assert set(back) | {"head.weight", "head.bias"} == set(published)


def test_key_and_value_are_the_halves() -> None:
    renamed = rename_published_pvt({"block3.1.attn.kv.bias": torch.arange(4)})
    attention = "encoder.layers.2.blocks.1.attention"
    assert {name: value.tolist() for name, value in renamed.items()} == {
        f"{attention}.key.bias": [0, 1],
        f"{attention}.value.bias": [2, 3],
    }


def test_start_as_published() -> None:
    encoder = PvtV2Encoder("b2")
    for name, module in encoder.named_modules():
        if isinstance(module, nn.Linear):
            assert module.bias.abs().max() == 0
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.05)
        elif isinstance(module, nn.Conv2d):
            fan_out = module.weight[0, 0].numel() * module.out_channels / module.groups
            assert module.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.05)
            assert module.bias.abs().max() == 0
        elif isinstance(module, nn.LayerNorm):
            inner = name.endswith(("patch_embedding.layer_norm", "attention.layer_norm"))
            assert module.eps == (1e-5 if inner else 1e-6)
            assert torch.equal(module.weight, torch.ones_like(module.weight))


@pytest.mark.parametrize("backbone", ["b0", "b2"])
def test_stochastic_depth_grows_to_a_tenth(backbone: str) -> None:
    with torch.device("meta"):
        encoder = PvtV2Encoder(backbone)
    blocks = [block for layer in encoder.pvt.encoder.layers for block in layer.blocks]
    rates = [getattr(block.drop_path, "drop_prob", 0.0) for block in blocks]
    assert rates == pytest.approx([0.1 * index / (len(blocks) - 1) for index in range(len(blocks))])


def test_depth_is_stochastic_in_training_only() -> None:
    encoder, image = PvtV2Encoder("b0").requires_grad_(False), torch.rand(1, 3, 32, 32)
    assert torch.equal(encoder.eval()(image)[3], encoder(image)[3])
    encoder.train()
    assert len({encoder(image)[3].sum().item() for _ in range(20)}) > 1


def test_stages_can_be_captured() -> None:
    encoder, captured = PvtV2Encoder("b0").eval(), []
    for index in range(4):
        encoder.get_submodule(f"stages.{index}").register_forward_hook(lambda *hooked: captured.append(hooked[2]))
    maps = encoder(torch.rand(1, 3, 64, 64))
    assert [one is other for one, other in zip(captured, maps, strict=True)] == [True] * 4


@pytest.mark.parametrize("save", ["classifier", "backbone"])
def test_folder_of_transformers(tmp_path: Path, save: str) -> None:
    config = transformers.PvtV2Config(num_labels=7)  # the sizes of b0 are its defaults
    if save == "classifier":
        saved = transformers.PvtV2ForImageClassification(config)
        weights = saved.pvt_v2.state_dict()
    else:
        saved = transformers.PvtV2Backbone(config)
        weights = saved.state_dict()
    saved.save_pretrained(tmp_path)
    encoder = PvtV2Encoder("b0")
    encoder.load_imagenet(tmp_path)
    assert all(torch.equal(value, weights[name]) for name, value in encoder.pvt.state_dict().items())
    assert encoder.pvt.encoder.layers[0].patch_embedding.layer_norm.eps == 1e-5
    assert encoder.pvt.encoder.layers[3].blocks[1].drop_path.drop_prob == pytest.approx(0.1)
    assert encoder.training


def test_folder_of_a_deeper_network(tmp_path: Path) -> None:
    """transformers itself would leave the further blocks out with a warning."""
    transformers.PvtV2Backbone(transformers.PvtV2Config(depths=[3, 2, 2, 2])).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"(?s)must be a PVTv2 b0 .*\[32, 64, 160, 256\] channels and \[3, 2, 2, 2\]"):
        PvtV2Encoder("b0").load_imagenet(tmp_path)


def test_folder_that_lacks_weights(tmp_path: Path) -> None:
    backbone = transformers.PvtV2Backbone(transformers.PvtV2Config())
    weights = {name: value for name, value in backbone.state_dict().items() if "layers.3." not in name}
    backbone.save_pretrained(tmp_path, state_dict=weights)
    with pytest.raises(ValueError, match=r"`encoder_weights` must be a PVTv2 b0 .*lacks encoder\.layers\.3\.blocks\.0"):
        PvtV2Encoder("b0").load_imagenet(tmp_path)


def test_folder_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"`encoder_weights` must be a PVTv2 b0 in a local file or folder, or by its"):
        PvtV2Encoder("b0").load_imagenet(tmp_path)


def test_hub_out_of_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(source: str, **options: object) -> None:
        raise OSError("We couldn't connect\n to the hub")

    monkeypatch.setattr(transformers.PvtV2Config, "from_pretrained", offline)
    with pytest.raises(ValueError, match="Face hub, but got 'OpenGVLab/pvt_v2_b0': We couldn't connect to the hub$"):
        PvtV2Encoder("b0").load_imagenet("OpenGVLab/pvt_v2_b0")


def test_file_of_another_size(path: Path) -> None:
    with pytest.raises(ValueError, match=r"(?s)`encoder_weights` must hold the PVTv2 b2 of its authors, but .*differs"):
        PvtV2Encoder("b2").load_imagenet(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"`encoder_weights` must be a local file with the PVTv2 b0.*nowhere"):
        PvtV2Encoder("b0").load_imagenet(tmp_path / "nowhere.pth")


@pytest.mark.parametrize("backbone", ["b1", "pvt_v2_b2"])
def test_unknown_backbone(backbone: str) -> None:
    with pytest.raises(ValueError, match=f"`backbone` must be one of 'b0', 'b2', but got '{backbone}'"):
        PvtV2Encoder(backbone)


def test_without_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(OptionalImportError, match=r"pip install monai-kd\[transformers\]"):
        PvtV2Encoder("b0")
