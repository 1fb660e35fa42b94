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

"""Files as the authors of PVTv2 and Polyp-PVT save them: their names and shapes, filled with reproducible numbers."""

from __future__ import annotations

import numpy as np
import torch

CHANNELS = {"b0": (32, 64, 160, 256), "b2": (64, 128, 320, 512)}
DEPTHS = {"b0": (2, 2, 2, 2), "b2": (3, 4, 6, 3)}
HEADS, REDUCTIONS, EXPANSIONS = (1, 2, 5, 8), (8, 4, 2, 1), (8, 8, 4, 4)
Shapes = dict[str, tuple[int, ...]]


def pvt_shapes(backbone: str, classes: int = 0) -> Shapes:
    """The entries of ``pvt_v2_b*.pth``; those of the encoder in Polyp-PVT have no classifier."""
    shapes: Shapes = {}
    before = 3
    for index, (channels, depth) in enumerate(zip(CHANNELS[backbone], DEPTHS[backbone], strict=True)):
        stage, kernel = index + 1, 7 if index == 0 else 3
        shapes |= _layer(f"patch_embed{stage}.proj", channels, before, kernel, kernel)
        shapes |= _layer(f"patch_embed{stage}.norm", channels)
        for block in range(depth):
            shapes |= _block(f"block{stage}.{block}", channels, REDUCTIONS[index], channels * EXPANSIONS[index])
        shapes |= _layer(f"norm{stage}", channels)
        before = channels
    return shapes | (_layer("head", classes, before) if classes else {})


def _layer(name: str, out_channels: int, *rest: int, bias: bool = True) -> Shapes:
    shapes: Shapes = {f"{name}.weight": (out_channels, *rest)}
    return shapes | ({f"{name}.bias": (out_channels,)} if bias else {})


def _block(name: str, channels: int, reduction: int, hidden: int) -> Shapes:
    shapes = _layer(f"{name}.norm1", channels) | _layer(f"{name}.norm2", channels)
    shapes |= _layer(f"{name}.attn.q", channels, channels) | _layer(f"{name}.attn.kv", 2 * channels, channels)
    shapes |= _layer(f"{name}.attn.proj", channels, channels)
    if reduction > 1:
        shapes |= _layer(f"{name}.attn.sr", channels, channels, reduction, reduction)
        shapes |= _layer(f"{name}.attn.norm", channels)
    shapes |= _layer(f"{name}.mlp.fc1", hidden, channels) | _layer(f"{name}.mlp.fc2", channels, hidden)
    return shapes | _layer(f"{name}.mlp.dwconv.dwconv", hidden, 1, 3, 3)


def _conv_norm(name: str, out_channels: int, in_channels: int, kernel: int) -> Shapes:
    shapes = _layer(f"{name}.conv", out_channels, in_channels, kernel, kernel, bias=False)
    shapes |= _layer(f"{name}.bn", out_channels)
    return shapes | {f"{name}.bn.running_mean": (out_channels,), f"{name}.bn.running_var": (out_channels,)}


def polyp_pvt_shapes(backbone: str) -> Shapes:
    """The entries of ``PolypPVT.pth``, without the numbers of batches that batch normalisation saw."""
    shapes = {f"backbone.{name}": shape for name, shape in pvt_shapes(backbone).items()}
    first, second, third, fourth = CHANNELS[backbone]
    for name, channels in (("2_0", first), ("2_1", second), ("3_1", third), ("4_1", fourth)):
        shapes |= _conv_norm(f"Translayer{name}", 32, channels, 1)
    for number, channels in ((1, 32), (2, 32), (3, 32), (4, 32), (5, 64)):
        shapes |= _conv_norm(f"CFM.conv_upsample{number}", channels, channels, 3)
    shapes |= _conv_norm("CFM.conv_concat2", 64, 64, 3) | _conv_norm("CFM.conv_concat3", 96, 96, 3)
    shapes |= _conv_norm("CFM.conv4", 32, 96, 3)
    shapes |= _layer("ca.fc1", first // 16, first, 1, 1, bias=False)
    shapes |= _layer("ca.fc2", first, first // 16, 1, 1, bias=False) | _layer("sa.conv1", 1, 2, 7, 7, bias=False)
    shapes |= _layer("SAM.conv_state", 16, 32, 1, 1) | _layer("SAM.conv_proj", 16, 32, 1, 1)
    shapes |= _layer("SAM.gcn.conv1", 16, 16, 1) | _layer("SAM.gcn.conv2", 16, 16, 1, bias=False)
    shapes |= _layer("SAM.conv_extend", 32, 16, 1, 1, bias=False)
    return shapes | _layer("out_SAM", 1, 32, 1, 1) | _layer("out_CFM", 1, 32, 1, 1)


def filled(shapes: Shapes) -> dict[str, torch.Tensor]:
    """Numbers of numpy's frozen generator, in single precision: the seed is the place in the sorted names."""
    weights = {}
    for seed, (name, shape) in enumerate(sorted(shapes.items())):
        spread = (3 / np.prod(shape[1:])) ** 0.5 if len(shape) > 1 else 0.2
        centre = float(name.endswith("running_var") or (name.endswith("weight") and len(shape) == 1))
        values = centre + spread * np.random.RandomState(seed).uniform(-1, 1, shape)
        weights[name] = torch.from_numpy(values).float()
    return weights
