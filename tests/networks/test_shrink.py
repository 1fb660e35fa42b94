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

"""A student's arguments from those of its teacher."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from monai_kd.networks import shrink
from monai_kd.networks.shrink import build, flops_of, shrink_to_flops

FLAT = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2}
LEVELS = {"channels": [16, 32, 64], "strides": [2, 2]}
DYN = {"kernel_size": [3, 3, 3], "strides": [1, 2, 2], "upsample_kernel_size": [2, 2]}
NETWORKS: dict[str, dict[str, Any]] = {
    "UNet": FLAT | LEVELS,
    "AttentionUnet": FLAT | LEVELS,
    "BasicUNet": FLAT,
    "BasicUNetPlusPlus": FLAT,
    "SegResNet": FLAT | {"init_filters": 32},
    "SegResNetDS": FLAT,
    "SegResNetVAE": FLAT | {"input_image_size": [32, 32], "init_filters": 32},
    "DynUNet": FLAT | DYN,
    "FlexibleUNet": {"in_channels": 1, "out_channels": 2, "backbone": "efficientnet-b4", "is_pad": False},
    "SwinUNETR": FLAT | {"feature_size": 48},
    "UNETR": FLAT | {"img_size": [32, 32]},
    "HighResNet": FLAT,
}
QUARTER = {
    "UNet": {"channels": [4, 8, 16]},
    "AttentionUnet": {"channels": [4, 8, 16]},
    "BasicUNet": {"features": [8, 8, 16, 32, 64, 8]},
    "BasicUNetPlusPlus": {"features": [8, 8, 16, 32, 64, 8]},
    "SegResNet": {"init_filters": 8},
    "SegResNetDS": {"init_filters": 8},
    "SegResNetVAE": {"init_filters": 8},
    "DynUNet": {"filters": [8, 16, 32]},
    "FlexibleUNet": {"backbone": "efficientnet-b0", "decoder_channels": [64, 32, 16, 8, 4]},
    "SwinUNETR": {"feature_size": 12},
    "UNETR": {"feature_size": 4, "hidden_size": 192, "mlp_dim": 768},
}


def block(name: str) -> dict[str, Any]:
    if name in ("SwinUNETR", "UNETR"):
        pytest.importorskip("einops")
    return {"_target_": f"monai.networks.nets.{name}"} | NETWORKS[name]


def shape(name: str) -> tuple[int, ...]:
    return (1, 1, 64, 64) if name == "SwinUNETR" else (1, 1, 32, 32)


@pytest.mark.parametrize("name", QUARTER)
def test_a_quarter_of_the_widths_and_nothing_else(name):
    given = block(name)
    assert shrink(given, 0.25) == given | QUARTER[name]
    assert given == block(name)


def test_layers_of_a_list():
    layers = shrink(block("HighResNet"), 0.25)["layer_params"]
    assert [layer.get("n_features") for layer in layers] == [4, 4, 8, 16, 20, None]
    assert layers[1]["kernels"] == (3, 3)


@pytest.mark.parametrize("name", NETWORKS)
def test_student_takes_the_image_and_gives_the_classes_of_the_teacher(name):
    """And needs a fraction of the operations."""
    small = shrink(block(name), 0.25)
    logits = build(small).eval()(torch.zeros(shape(name)))
    logits = logits[0] if isinstance(logits, (list, tuple)) else logits
    assert logits.shape == (1, 2, *shape(name)[2:])
    assert flops_of(build(small), shape(name)) < 0.35 * flops_of(build(block(name)), shape(name))


def test_never_below_4_channels_nor_above_the_teacher():
    assert shrink(block("UNet"), 0.01)["channels"] == [4, 4, 4]
    narrow = block("UNet") | {"channels": [2, 3, 8]}
    assert shrink(narrow, 0.5)["channels"] == [2, 3, 4]


def test_group_normalization_keeps_its_groups():
    grouped = block("UNet") | {"norm": ["group", {"num_groups": 8}]}
    assert shrink(grouped, 0.3)["channels"] == [8, 8, 16]
    build(shrink(grouped, 0.3))


@pytest.mark.parametrize("share", [0.1, 0.3])
@pytest.mark.parametrize("name", ["UNet", "DynUNet"])
def test_share_of_the_flops_within_a_tenth(name, share):
    wide = block(name) | ({"channels": [32, 64, 128]} if name == "UNet" else {})
    student = shrink_to_flops(wide, share, shape(name))
    goal = share * flops_of(build(wide), shape(name))
    assert flops_of(build(student), shape(name)) == pytest.approx(goal, rel=0.1)


def test_flops_of_a_convolution_by_hand():
    """2 x positions x weights."""
    layer = torch.nn.Conv2d(3, 5, 3, padding=1)
    assert flops_of(layer, (2, 3, 8, 8)) == 2 * 2 * 64 * math.prod((3, 5, 3, 3))


def test_share_that_the_widths_do_not_allow():
    with pytest.raises(ValueError, match=r"share that the widths allow within 10 %, but got 10.00%; the nearest is 25"):
        shrink_to_flops(block("SegResNet") | {"init_filters": 16}, 0.1, (1, 1, 32, 32))


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("VNet", "but got VNet, which has fixed widths; describe the student yourself"),
        ("DiNTS", "but got DiNTS, whose widths belong to the architecture that was searched"),
        ("scripts.net.Own", "must be UNet, .* but got Own; describe"),
    ],
)
def test_network_without_a_rule(target, message):
    with pytest.raises(ValueError, match=message):
        shrink({"_target_": target}, 0.5)


@pytest.mark.parametrize("factor", [0, 1, -0.5, "1/4", True, float("nan")])
def test_factor_out_of_range(factor):
    with pytest.raises(ValueError, match="`factor` must be above 0 and below 1, but got"):
        shrink(block("UNet"), factor)
    with pytest.raises(ValueError, match="`flops` must be above 0 and below 1"):
        shrink_to_flops(block("UNet"), factor, (1, 1, 32, 32))


def test_unknown_backbone():
    with pytest.raises(ValueError, match="`backbone` must be one of efficientnet-b0, .*, but got 'vgg16'"):
        shrink(block("FlexibleUNet") | {"backbone": "vgg16"}, 0.5)
