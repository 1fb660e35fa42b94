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

"""Polyp-PVT: teacher (B2) and student (B0) of KDAS."""

from __future__ import annotations

import logging
import os
from functools import partial

import torch
from monai.networks.blocks import Convolution
from torch import nn
from torch.nn import functional as F

from monai_kd.networks.blocks import (
    CamouflageIdentification,
    CascadedFusion,
    ImageInput,
    PvtV2Encoder,
    SimilarityAggregation,
)
from monai_kd.networks.blocks.pvt_v2_encoder import rename_published_pvt
from monai_kd.networks.load_published import load_published

logger = logging.getLogger(__name__)

PUBLISHED_NAMES = {  # of the decoder, see DengPingFan/Polyp-PVT, lib/pvt.py
    "Translayer2_0": "reduce1",
    "Translayer2_1": "reduce2",
    "Translayer3_1": "reduce3",
    "Translayer4_1": "reduce4",
    "ca.fc1": "identification.channel_score.0",
    "ca.fc2": "identification.channel_score.2",
    "sa.conv1": "identification.pixel_score",
    "CFM.conv_upsample1": "fusion.gate_deep_middle",
    "CFM.conv_upsample2": "fusion.gate_deep_shallow",
    "CFM.conv_upsample3": "fusion.gate_middle_shallow",
    "CFM.conv_upsample4": "fusion.carry_deep",
    "CFM.conv_upsample5": "fusion.carry_middle",
    "CFM.conv_concat2": "fusion.merge_middle",
    "CFM.conv_concat3": "fusion.merge_shallow",
    "CFM.conv4": "fusion.reduce",
    "SAM.conv_state": "aggregation.state",
    "SAM.conv_proj": "aggregation.projection",
    "SAM.gcn.conv1": "aggregation.mix_nodes",
    "SAM.gcn.conv2": "aggregation.mix_states",
    "SAM.conv_extend": "aggregation.extend",
    "out_CFM": "scale1.conv",
    "out_SAM": "scale2.conv",
}


class PolypPVT(nn.Module):
    """
    Polyp-PVT for endoscopic frames: a PVTv2 encoder, its three deep maps fused, its shallow map searched for detail,
    and both brought together. Two maps of logits are supervised, that before and that after the detail came in.

    Dong et al., Polyp-PVT, CAAI Artificial Intelligence Research 2023 (arXiv:2108.06932), as its released code builds
    it; Trinh et al., KDAS, arXiv:2312.08555, teacher (B2) and student (B0) of Tables 1 to 4. 25,107,604 parameters with
    B2 and 3,650,740 with B0 (paper: 3.7 M), as in the released code, and the same logits for the same weights. One
    frame of 352 x 352 costs 21.7 and 3.8 GFLOPs, counted as 2 x multiply-accumulate by torch; KDAS reports 2.01 for B0
    (Table 2), which is near the 1.90 G multiply-accumulates.

    In training mode the two maps are returned as a list, so that each is supervised (KDAS, Eq. 7); in eval mode their
    sum, as in the test code released with Polyp-PVT. Each is brought to the size of the image by bilinear upsampling
    by 8 with ``align_corners=False``.

    Frames of any size are taken: H and W are padded to the next multiple of 32 by repeating the border (below and to
    the right), and the logits are cropped back.

    For distillation, in training as in eval mode, for an input of 352 x 352:

    =======================  =====================  ==================================================
    path                     shape                  what
    =======================  =====================  ==================================================
    ``scale1``               out x 352 x 352        logits of the fused map (``out_CFM``, P1 of KDAS)
    ``scale2``               out x 352 x 352        logits with detail (``out_SAM``, P2 of KDAS)
    ``fusion``               32 x 44 x 44           what ``scale1`` sees
    ``aggregation``          32 x 44 x 44           what ``scale2`` sees
    ``encoder.stages.0``     64 (B0: 32) x 88 x 88  first map of the encoder
    ``encoder.stages.1``     128 (64) x 44 x 44     second
    ``encoder.stages.2``     320 (160) x 22 x 22    third
    ``encoder.stages.3``     512 (256) x 11 x 11    last
    =======================  =====================  ==================================================

    Between two of them give each ``DistillationTerm`` the layers ``scale1`` and ``scale2`` of both, also one that
    compares logits, as ``KDLoss``. Without layers it finds two maps in the student, which trains, and their sum in the
    teacher, which is in eval mode: by default it pulls ``scale1`` towards the sum and says nothing to ``scale2``; with
    ``outputs="all"`` it pulls each towards the sum, so that the student's own sum is to be twice the teacher's. From a
    teacher of another architecture, with one map, ``outputs="all"`` supervises both maps, as the labels do.

    Script it by tracing, transformers does not compile in TorchScript; ``torch.compile`` and ONNX work.

    Args:
        backbone: ``"b2"`` or ``"b0"``.
        in_channels: channels of the image; 1 is repeated to 3, any other number enters the first convolution as it is.
        out_channels: maps of logits, 1 for the sigmoid of the papers.
        encoder_weights: ImageNet weights of the encoder, for 1 or 3 ``in_channels``: a local file of PVTv2's authors, a
            local folder of transformers, or a name on the Hugging Face hub. See :py:meth:`PvtV2Encoder.load_imagenet`.
        weights: local file of a whole Polyp-PVT as its authors, or those of KDAS, save it.

    Raises:
        FileNotFoundError: when a file of weights is missing.
        OptionalImportError: when transformers is not installed.
        ValueError: when an argument is out of range, weights do not fit, the image is not (B, in_channels, H, W), or a
            training batch is one frame of 32 x 32 or less, which batch normalisation cannot take.

    Example::

        >>> import torch
        >>> PolypPVT(backbone="b0").eval()(torch.zeros(1, 3, 50, 70)).shape
        torch.Size([1, 1, 50, 70])
    """

    def __init__(
        self,
        backbone: str = "b2",
        in_channels: int = 3,
        out_channels: int = 1,
        encoder_weights: str | os.PathLike[str] | None = None,
        weights: str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__()
        if out_channels < 1:
            raise ValueError(f"`out_channels` must be 1 or more, but got {out_channels}.")
        self.input = ImageInput(in_channels, divisor=1)
        self.encoder = PvtV2Encoder(backbone, self.input.out_channels)  # 1/4, 1/8, 1/16, 1/32
        conv = partial(Convolution, 2, out_channels=32, kernel_size=1, bias=False, act=None, norm="batch")
        self.identification = CamouflageIdentification(self.encoder.channels[0])
        self.reduce1, self.reduce2, self.reduce3, self.reduce4 = (conv(channels) for channels in self.encoder.channels)
        self.fusion = CascadedFusion(32)  # 1/8
        self.aggregation = SimilarityAggregation(32)  # 1/8
        self.scale1 = _Head(32, out_channels)  # 1/1
        self.scale2 = _Head(32, out_channels)  # 1/1
        self._load(encoder_weights, weights, in_channels)

    def _load(
        self,
        encoder_weights: str | os.PathLike[str] | None,
        weights: str | os.PathLike[str] | None,
        in_channels: int,
    ) -> None:
        name = self.encoder.name
        if weights is not None and encoder_weights is not None:
            raise ValueError(f"`encoder_weights` must be None beside `weights`, but got {encoder_weights}.")
        if in_channels not in (1, 3) and (weights is not None or encoder_weights is not None):
            raise ValueError(f"`encoder_weights` and `weights` need `in_channels` 1 or 3, but got {in_channels}.")
        if weights is not None:
            content = f"a Polyp-PVT with backbone {name} (ImageNet weights are `encoder_weights`)"
            load_published(self, weights, rename_published, "weights", content)
        elif encoder_weights is not None:
            self.encoder.load_imagenet(encoder_weights)
        else:
            logger.info(f"PolypPVT {name} trains from scratch unless a checkpoint follows: no weights are given")

    def forward(self, image: torch.Tensor) -> torch.Tensor | list[torch.Tensor]:
        """
        Args:
            image: (B, in_channels, H, W).

        Returns:
            In eval mode logits (B, out_channels, H, W), in training mode the two of ``scale1`` and ``scale2``.
        """
        x = self.input(image)
        size = x.shape[2:]
        self._check(x)
        missing = [(length + 31) // 32 * 32 - length for length in size]  # to the next multiple of 32
        x = F.pad(x, (0, missing[1], 0, missing[0]), mode="replicate")
        feature1, feature2, feature3, feature4 = self.encoder(x)
        fused = self.fusion(self.reduce4(feature4), self.reduce3(feature3), self.reduce2(feature2))
        detail = self.reduce1(self.identification(feature1))  # (B, 32, H / 4, W / 4)
        detail = F.interpolate(detail, scale_factor=0.5, mode="bilinear", align_corners=True)
        logits1 = self.scale1(fused, size)
        logits2 = self.scale2(self.aggregation(fused, detail), size)
        return [logits1, logits2] if self.training else logits1 + logits2

    def _check(self, x: torch.Tensor) -> None:
        if self.training and x.shape[0] == 1 and max(x.shape[2:]) <= 32:
            raise ValueError(
                "`image` must be larger than 32 x 32 in a training batch of one, but got "
                f"{list(x.shape)}; the last map would be one pixel, which batch normalisation cannot take."
            )


class _Head(nn.Module):
    """Logits of a map at 1/8, at the size of the image."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel_size=1)

    def forward(self, x: torch.Tensor, size: torch.Size) -> torch.Tensor:
        logits = F.interpolate(self.conv(x), scale_factor=8.0, mode="bilinear", align_corners=False)
        return logits[:, :, : size[0], : size[1]]


def rename_published(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Published names become those of PolypPVT; unknown ones stay, and are refused when they are loaded."""
    prefix = "backbone."
    encoder = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    renamed = {f"encoder.pvt.{name}": value for name, value in rename_published_pvt(encoder).items()}
    for name, value in weights.items():
        if not name.startswith(prefix):
            layer = next((layer for layer in PUBLISHED_NAMES if name.startswith(f"{layer}.")), "")
            rest = name.removeprefix(layer).replace(".bn.", ".adn.N.")
            renamed[PUBLISHED_NAMES.get(layer, "") + rest] = value
    return renamed
