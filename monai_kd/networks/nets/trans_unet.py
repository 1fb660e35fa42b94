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

"""TransUNet: teacher and assistants of PLC-KD."""

from __future__ import annotations

import logging
import os
import re
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.networks.blocks import Convolution
from monai.networks.nets.basic_unet import TwoConv
from torch import nn
from torch.nn import functional as F

from monai_kd.networks.blocks import HybridResNetEncoder, ImageInput, ViTEncoder
from monai_kd.networks.load_published import load_encoder, shortened

logger = logging.getLogger(__name__)

SIZES: dict[str, dict[str, Any]] = {
    "r50_vit_b16": {
        "resnet": {"width": 64, "blocks": (3, 4, 9)},
        "vit": {"hidden_size": 768, "mlp_dim": 3072, "num_heads": 12, "num_layers": 12},
        "decoder": (512, 256, 128, 64, 16),
    },
    "tiny": {
        "resnet": {"width": 32, "blocks": (1, 1, 1)},
        "vit": {"hidden_size": 192, "mlp_dim": 768, "num_heads": 3, "num_layers": 4},
        "decoder": (128, 64, 32, 16, 16),
    },
}
CLASSIFIER = ("cls", "head/", "pre_logits/")  # beginnings of names that segmentation has no use for
RESNET_LAYERS = {"conv_root": "stem.0", "gn_root": "stem.1", "conv_proj": "projection.0", "gn_proj": "projection.1"}
VIT_LAYERS = {
    "LayerNorm_0": "norm1",
    "LayerNorm_2": "norm2",
    "MlpBlock_3/Dense_0": "mlp.linear1",
    "MlpBlock_3/Dense_1": "mlp.linear2",
    "MultiHeadDotProductAttention_1/out": "projection",
}
ATTENTION = "MultiHeadDotProductAttention_1"


class TransUNet(nn.Module):
    """
    TransUNet for slices or photographs: a ResNet-50 to 1/16, a vision transformer on its map, and the decoder of a
    U-Net with skips to the ResNet.

    Chen et al., TransUNet, arXiv:2102.04306, R50-ViT-B/16 with three skips (Sec. 3.2), as its released code builds it
    (with the same weights it gives the released logits to 1e-6);
    Wang et al., PLC-KD, MICCAI 2024 (Sec. 3.1): teacher and both assistants. 105,276,066 parameters for 2 classes at
    ``img_size`` 224, as in the released code; the position embeddings are the only ones that depend on ``img_size``.
    One image of 224 x 224 costs 58.4 GFLOPs, counted as 2 x multiply-accumulate by torch. ``"tiny"`` is ours, for CPUs:
    the same architecture with 2,975,618 parameters and 3.1 GFLOPs.

    Images need not have ``img_size``: the position embeddings are resized to the image's map, bilinearly and corners to
    corners, as the released code resizes those of a file. ``img_size`` says at which size they are learnt.

    For distillation, for an input of 224 x 224:

    ==================  ===============  ==============================================================
    path                shape            what
    ==================  ===============  ==============================================================
    ``resnet.stem``     64 x 112 x 112   first map, at 1/2
    ``resnet.stage1``   256 x 55 x 55    at 1/4; its skip has a row and a column of zeros more
    ``resnet.stage2``   512 x 28 x 28    at 1/8
    ``resnet.stage3``   1024 x 14 x 14   at 1/16, what the transformer sees
    ``vit``             768 x 14 x 14    what the transformer says
    ``up1``             256 x 28 x 28    first map of the decoder; ``up2`` 128, ``up3`` 64, ``up4`` 16
    ==================  ===============  ==============================================================

    Args:
        backbone: ``"r50_vit_b16"`` or ``"tiny"``.
        in_channels: channels of the image; 1 is repeated to 3, any other number enters the first convolution as it is.
        out_channels: classes, background included.
        img_size: height and width that the position embeddings are made for, a multiple of 16.
        encoder_weights: ImageNet weights of ResNet and transformer, for 1 or 3 ``in_channels``: a local file as the
            authors of ViT publish it (``R50+ViT-B_16.npz``). None starts at random,
            which is logged as a training begins.

    Raises:
        FileNotFoundError: when ``encoder_weights`` is no file.
        ValueError: when an argument is out of range, ``encoder_weights`` does not fit, or the image is not
            (B, in_channels, H, W) with H and W divisible by 16 and one of them larger.

    Example::

        >>> import torch
        >>> TransUNet(backbone="tiny").eval()(torch.zeros(1, 3, 64, 96)).shape
        torch.Size([1, 2, 64, 96])
    """

    def __init__(
        self,
        backbone: str = "r50_vit_b16",
        in_channels: int = 3,
        out_channels: int = 2,
        img_size: int = 224,
        encoder_weights: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__()
        self._check_arguments(backbone, out_channels, img_size)
        size, channels = SIZES[backbone], SIZES[backbone]["decoder"]
        width = size["resnet"]["width"]
        self.input = ImageInput(in_channels, divisor=16)
        self.resnet = HybridResNetEncoder(self.input.out_channels, **size["resnet"])  # 1/2, 1/4, 1/8, 1/16
        self.vit = ViTEncoder(16 * width, grid=img_size // 16, **size["vit"])  # 1/16
        self.reduce = Convolution(2, size["vit"]["hidden_size"], channels[0], act="relu", norm="batch", bias=False)
        convs = partial(TwoConv, 2, act="relu", norm="batch", bias=False)
        self.up1 = _Up(convs(channels[0] + 8 * width, channels[1]))  # 1/8
        self.up2 = _Up(convs(channels[1] + 4 * width, channels[2]))  # 1/4
        self.up3 = _Up(convs(channels[2] + width, channels[3]))  # 1/2
        self.up4 = nn.Sequential(
            nn.Upsample(scale_factor=2.0, mode="bilinear", align_corners=True), convs(channels[3], channels[4])
        )  # 1/1
        self.head = nn.Conv2d(channels[4], out_channels, kernel_size=3, padding=1)
        self._untold = f"TransUNet {backbone}" if encoder_weights is None else ""
        load_encoder(lambda path: self._load(path, backbone), encoder_weights, in_channels)

    def train(self, mode: bool = True) -> TransUNet:
        """As of any module; says once, as a training begins, that it begins from random weights."""
        if mode and self._untold:  # not where the network is built: most are built to be given a checkpoint
            logger.info(f"{self._untold} trains from scratch unless a checkpoint was loaded: no weights are given")
            self._untold = ""
        return super().train(mode)

    @staticmethod
    def _check_arguments(backbone: str, out_channels: int, img_size: int) -> None:
        if backbone not in SIZES:
            raise ValueError(f"`backbone` must be one of {', '.join(map(repr, SIZES))}, but got {backbone!r}.")
        if out_channels < 1:
            raise ValueError(f"`out_channels` must be 1 or more, but got {out_channels}.")
        if img_size < 16 or img_size % 16:
            raise ValueError(f"`img_size` must be a multiple of 16, but got {img_size}.")

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """
        Args:
            image: (B, in_channels, H, W), H and W divisible by 16 and one of them larger.

        Returns:
            Logits (B, out_channels, H, W).
        """
        x = self.input(image)
        if not torch.jit.is_tracing():  # a trace cannot hold a condition
            self._check_size(x)
        feature0, feature1, feature2, feature3 = self.resnet(x)
        x = self.reduce(self.vit(feature3))  # (B, 512, H / 16, W / 16)
        x = self.up1(x, feature2)  # (B, 256, H / 8, W / 8)
        x = self.up2(x, feature1)  # (B, 128, H / 4, W / 4)
        x = self.up3(x, feature0)  # (B, 64, H / 2, W / 2)
        return self.head(self.up4(x))

    def _check_size(self, x: torch.Tensor) -> None:
        if x.shape[2] == 16 and x.shape[3] == 16:
            raise ValueError(
                f"`image` must be larger than 16 x 16, but got {list(x.shape)}; its last map would be one pixel, of "
                "which a normalisation by channel leaves nothing."
            )

    def _load(self, path: str | os.PathLike[str], backbone: str) -> None:
        weights = rename_published(_read(path), grid=self.vit.position.shape[-1])
        own = {name for name in self.state_dict() if name.startswith(("resnet.", "vit."))}
        try:
            wrong = sorted(own.symmetric_difference(weights))
            if wrong:
                raise RuntimeError("; ".join(f"{name} {'missing' if name in own else 'unexpected'}" for name in wrong))
            self.load_state_dict(weights, strict=False)
        except RuntimeError as error:
            raise ValueError(
                f"`encoder_weights` must hold ResNet and ViT of TransUNet {backbone}, but {path} differs. "
                f"{shortened(str(error))}"
            ) from error


class _Up(nn.Module):
    """The decoder's map at twice its size, which is that of the skip, then the skip and two convolutions."""

    def __init__(self, convs: nn.Module) -> None:
        super().__init__()
        self.convs = convs

    def forward(self, x: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        # by size, not by factor: torch.export cannot prove that both come to the same
        x = F.interpolate(x, size=skip.shape[2:], mode="bilinear", align_corners=True)
        return self.convs(torch.cat([x, skip], dim=1))


def _read(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """Arrays of a NumPy archive, none of which may need code to be run."""
    if not Path(path).is_file():
        raise FileNotFoundError(
            "`encoder_weights` must be a local file as ViT's authors publish it (R50+ViT-B_16.npz), but got "
            f"{str(path)!r}; download it first, or pass None."
        )
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: torch.from_numpy(archive[name]) for name in archive.files if not name.startswith(CLASSIFIER)}
    except Exception as error:  # a damaged file fails in a dozen ways
        raise ValueError(
            f"`encoder_weights` must be an archive of NumPy arrays (.npz), but {path} is not one, or is damaged: "
            f"{shortened(str(error))}"
        ) from error


def rename_published(weights: dict[str, torch.Tensor], grid: int) -> dict[str, torch.Tensor]:
    """
    Entries of TransUNet from those of a published ViT hybrid, by name and layout: kernels have their output last there,
    query, key and value are apart, and each has its heads as an axis. Unknown names stay, and are refused when they are
    loaded.

    Args:
        weights: ``conv_root/kernel``, ``block1/unit1/gn1/scale``, ``Transformer/encoderblock_0/...``, ...
        grid: height and width that the position embeddings shall have.

    Returns:
        ``resnet.*`` and ``vit.*``.

    Example::

        >>> list(rename_published({"block2/unit1/conv_proj/kernel": torch.zeros(1, 1, 4, 8)}, grid=14))
        ['resnet.stage2.0.projection.0.weight']
    """
    renamed, attention = {}, {}
    for name, value in weights.items():
        found = re.fullmatch(rf"Transformer/encoderblock_(\d+)/{ATTENTION}/(query|key|value)/(kernel|bias)", name)
        if found is not None:
            attention[int(found[1]), found[3], found[2]] = value
        elif name == "Transformer/posembed_input/pos_embedding":
            renamed["vit.position"] = _position(value, grid)
        else:
            renamed[_rename(name)] = _to_torch(value, name.rpartition("/")[2])
    for layer, kind in sorted({key[:2] for key in attention}):
        new = f"vit.layers.{layer}.qkv.{'weight' if kind == 'kernel' else 'bias'}"
        parts = [attention[layer, kind, part] for part in ("query", "key", "value") if (layer, kind, part) in attention]
        renamed[new] = torch.cat([part.flatten(1).T if kind == "kernel" else part.flatten() for part in parts])
    return renamed


def _rename(name: str) -> str:
    layer, _, kind = name.rpartition("/")
    kind = {"kernel": "weight", "scale": "weight"}.get(kind, kind)
    if layer in RESNET_LAYERS:
        return f"resnet.{RESNET_LAYERS[layer]}.{kind}"
    if layer in ("embedding", "Transformer/encoder_norm"):
        return f"vit.{layer.removeprefix('Transformer/encoder_')}.{kind}"
    found = re.fullmatch(r"block(\d+)/unit(\d+)/(.+)", layer)
    if found is not None:
        part = RESNET_LAYERS.get(found[3], found[3].replace("gn", "norm"))
        return f"resnet.stage{found[1]}.{int(found[2]) - 1}.{part}.{kind}"
    found = re.fullmatch(r"Transformer/encoderblock_(\d+)/(.+)", layer)
    if found is not None and found[2] in VIT_LAYERS:
        return f"vit.layers.{found[1]}.{VIT_LAYERS[found[2]]}.{kind}"
    return name


def _to_torch(value: torch.Tensor, kind: str) -> torch.Tensor:
    if kind != "kernel" or value.ndim < 2:
        return value.flatten()  # some are (1, 1, 1, channel)
    if value.ndim == 4:
        return value.permute(3, 2, 0, 1)  # (h, w, in, out)
    return value.flatten(0, -2).T  # (in, out), or (head, channel, out)


def _position(value: torch.Tensor, grid: int) -> torch.Tensor:
    """(1, 1 + h w, channel), the class token first, becomes (1, channel, grid, grid)."""
    side = round(max(value.shape[1] - 1, 0) ** 0.5) if value.ndim == 3 else 0
    if side < 1 or side * side != value.shape[1] - 1:
        return value  # refused by its shape when it is loaded
    places = value[:, 1:].mT.unflatten(2, (side, side))
    return F.interpolate(places, size=(grid, grid), mode="bilinear", align_corners=True)
