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

"""Files as ViT's authors publish R50+ViT: names and layouts, filled with reproducible numbers; and that network."""

from __future__ import annotations

import numpy as np
import torch
from torch.nn import functional as F

Shapes = dict[str, tuple[int, ...]]
B16 = {"width": 64, "units": (3, 4, 9), "hidden": 768, "inner": 3072, "heads": 12, "layers": 12}
TINY = {"width": 32, "units": (1, 1, 1), "hidden": 192, "inner": 768, "heads": 3, "layers": 4}


def hybrid_vit_shapes(
    width: int, units: tuple[int, ...], hidden: int, inner: int, heads: int, layers: int, grid: int = 14
) -> Shapes:
    """The entries of ``R50+ViT-B_16.npz``: kernels (h, w, in, out), with heads (in, head, channel)."""
    shapes: Shapes = {"conv_root/kernel": (7, 7, 3, width)} | _norm("gn_root", (width,))
    before = width
    for stage, count in enumerate(units):
        waist = width * 2**stage
        for unit in range(count):
            name = f"block{stage + 1}/unit{unit + 1}"
            sides = ((1, before, waist), (3, waist, waist), (1, waist, 4 * waist))
            for number, (side, first, last) in enumerate(sides, start=1):
                shapes[f"{name}/conv{number}/kernel"] = (side, side, first, last)
                shapes |= _norm(f"{name}/gn{number}", (1, 1, 1, last))
            if unit == 0:
                shapes[f"{name}/conv_proj/kernel"] = (1, 1, before, 4 * waist)
                shapes |= _norm(f"{name}/gn_proj", (1, 1, 1, 4 * waist))
            before = 4 * waist
    shapes |= _dense("embedding", (1, 1, before, hidden), (hidden,)) | _norm("Transformer/encoder_norm", (hidden,))
    shapes |= {"cls": (1, 1, hidden), "Transformer/posembed_input/pos_embedding": (1, 1 + grid**2, hidden)}
    for layer in range(layers):
        name, split = f"Transformer/encoderblock_{layer}", (heads, hidden // heads)
        shapes |= _norm(f"{name}/LayerNorm_0", (hidden,)) | _norm(f"{name}/LayerNorm_2", (hidden,))
        shapes |= _dense(f"{name}/MlpBlock_3/Dense_0", (hidden, inner), (inner,))
        shapes |= _dense(f"{name}/MlpBlock_3/Dense_1", (inner, hidden), (hidden,))
        attention = f"{name}/MultiHeadDotProductAttention_1"
        for part in ("query", "key", "value"):
            shapes |= _dense(f"{attention}/{part}", (hidden, *split), split)
        shapes |= _dense(f"{attention}/out", (*split, hidden), (hidden,))
    return shapes | _dense("head", (hidden, 10), (10,)) | _dense("pre_logits", (hidden, hidden), (hidden,))


def _norm(name: str, shape: tuple[int, ...]) -> Shapes:
    return {f"{name}/scale": shape, f"{name}/bias": shape}


def _dense(name: str, kernel: tuple[int, ...], bias: tuple[int, ...]) -> Shapes:
    return {f"{name}/kernel": kernel, f"{name}/bias": bias}


def filled(shapes: Shapes) -> dict[str, np.ndarray]:
    """Numbers of numpy's frozen generator, in single precision: the seed is the place in the sorted names."""
    weights = {}
    for seed, (name, shape) in enumerate(sorted(shapes.items())):
        spread = (3 / np.prod(shape[:-1])) ** 0.5 if name.endswith("kernel") else 0.2
        values = name.endswith("scale") + spread * np.random.RandomState(seed).uniform(-1, 1, shape)
        weights[name] = values.astype(np.float32)
    return weights


class PublishedHybridViT:
    """The network of such a file in matrix arithmetic, with the normalisations and paddings of TransUNet."""

    def __init__(self, weights: dict[str, np.ndarray], units: tuple[int, ...], layers: int) -> None:
        self.weights = {name: torch.from_numpy(value).double() for name, value in weights.items()}
        self.units, self.layers = units, layers

    def conv(self, name: str, x: torch.Tensor, **geometry: int) -> torch.Tensor:
        kernel = self.weights[f"{name}/kernel"]
        mean = kernel.mean((0, 1, 2))
        kernel = (kernel - mean) / ((kernel - mean).square().mean((0, 1, 2)) + 1e-5).sqrt()
        return F.conv2d(x, kernel.permute(3, 2, 0, 1), **geometry)

    def affine(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """Over the last dimension."""
        return x * self.weights[f"{name}/scale"].flatten() + self.weights[f"{name}/bias"].flatten()

    def group_norm(self, name: str, x: torch.Tensor, groups: int = 32, eps: float = 1e-6) -> torch.Tensor:
        grouped = x.reshape(len(x), groups, -1)
        grouped = grouped - grouped.mean(2, keepdim=True)
        grouped = grouped / (grouped.square().mean(2, keepdim=True) + eps).sqrt()
        return self.affine(name, grouped.reshape(x.shape).movedim(1, -1)).movedim(-1, 1)

    def unit(self, name: str, x: torch.Tensor, stride: int, project: bool) -> torch.Tensor:
        y = self.group_norm(f"{name}/gn1", self.conv(f"{name}/conv1", x)).clamp(min=0)
        y = self.group_norm(f"{name}/gn2", self.conv(f"{name}/conv2", y, stride=stride, padding=1)).clamp(min=0)
        y = self.group_norm(f"{name}/gn3", self.conv(f"{name}/conv3", y))
        if project:
            x = self.conv(f"{name}/conv_proj", x, stride=stride)
            x = self.group_norm(f"{name}/gn_proj", x, groups=x.shape[1], eps=1e-5)
        return (x + y).clamp(min=0)

    def resnet(self, image: torch.Tensor) -> list[torch.Tensor]:
        x = self.conv("conv_root", image, stride=2, padding=3)
        maps = [self.group_norm("gn_root", x).clamp(min=0)]
        x = F.max_pool2d(maps[0], kernel_size=3, stride=2)
        for stage, count in enumerate(self.units):
            for unit in range(count):
                stride = 2 if stage > 0 and unit == 0 else 1
                x = self.unit(f"block{stage + 1}/unit{unit + 1}", x, stride, project=unit == 0)
            maps.append(x)
        padded = torch.zeros(*maps[1].shape[:2], *(length // 2 for length in maps[0].shape[2:]), dtype=x.dtype)
        padded[:, :, : maps[1].shape[2], : maps[1].shape[3]] = maps[1]
        return [maps[0], padded, *maps[2:]]

    def layer_norm(self, name: str, x: torch.Tensor) -> torch.Tensor:
        x = x - x.mean(-1, keepdim=True)
        return self.affine(name, x / (x.square().mean(-1, keepdim=True) + 1e-6).sqrt())

    def dense(self, name: str, equation: str, x: torch.Tensor) -> torch.Tensor:
        return torch.einsum(equation, x, self.weights[f"{name}/kernel"]) + self.weights[f"{name}/bias"]

    def attention(self, name: str, x: torch.Tensor) -> torch.Tensor:
        query, key, value = (self.dense(f"{name}/{part}", "bnc,chd->bnhd", x) for part in ("query", "key", "value"))
        score = torch.einsum("bqhd,bkhd->bhqk", query, key) / query.shape[-1] ** 0.5
        score = score.exp() / score.exp().sum(-1, keepdim=True)
        return self.dense(f"{name}/out", "bnhd,hdc->bnc", torch.einsum("bhqk,bkhd->bqhd", score, value))

    def vit(self, feature: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        """``position`` is (h w, channel), as the map has it."""
        x = torch.einsum("bchw,cd->bhwd", feature, self.weights["embedding/kernel"][0, 0]).flatten(1, 2)
        x = x + self.weights["embedding/bias"] + position
        for layer in range(self.layers):
            name = f"Transformer/encoderblock_{layer}"
            y = self.layer_norm(f"{name}/LayerNorm_0", x)
            x = x + self.attention(f"{name}/MultiHeadDotProductAttention_1", y)
            y = self.dense(f"{name}/MlpBlock_3/Dense_0", "bnc,cd->bnd", self.layer_norm(f"{name}/LayerNorm_2", x))
            x = x + self.dense(f"{name}/MlpBlock_3/Dense_1", "bnc,cd->bnd", y * (1 + torch.erf(y / 2**0.5)) / 2)
        x = self.layer_norm("Transformer/encoder_norm", x)
        return x.mT.unflatten(2, feature.shape[2:])
