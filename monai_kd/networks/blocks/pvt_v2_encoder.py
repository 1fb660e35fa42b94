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

"""PVTv2 of transformers as an encoder that shows its stages and takes the published ImageNet weights."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import torch
from monai.utils import optional_import
from torch import nn

from monai_kd.networks.load_published import load_published, shortened

SIZES = {  # channels and blocks of the four stages: Wang et al., Table 1
    "b0": ([32, 64, 160, 256], [2, 2, 2, 2]),
    "b2": ([64, 128, 320, 512], [3, 4, 6, 3]),
}
STAGES = ["stage1", "stage2", "stage3", "stage4"]


class PvtV2Encoder(nn.Module):
    """
    The feature pyramid of PVTv2 (Wang et al., Computational Visual Media 2022, arXiv:2106.13797, Table 1), computed by
    :py:class:`transformers.PvtV2Backbone`: overlapping patches, attention with spatially reduced keys and values, and
    a feed-forward network with a depth-wise convolution.

    It is set as published: a stochastic depth that grows to 0.1 (in training mode only), biases for query, key and
    value, and 1e-6 in the layer normalisations, but 1e-5 in those behind patches and reduced keys, where transformers
    has 1e-6 too. Linear layers start from a truncated normal distribution of 0.02, convolutions from a normal one by
    fan-out.

    Args:
        backbone: ``"b0"`` or ``"b2"``.
        in_channels: channels of the image; 3 for ImageNet weights.

    Attributes:
        channels: channels of the four maps.
        stages: each passes one map through, so that it can be captured by path.

    Raises:
        OptionalImportError: when transformers is not installed.
        ValueError: when there is no such backbone.

    Example::

        >>> import torch
        >>> [feature.shape[1:] for feature in PvtV2Encoder("b0")(torch.zeros(1, 3, 64, 64))]
        [torch.Size([32, 16, 16]), torch.Size([64, 8, 8]), torch.Size([160, 4, 4]), torch.Size([256, 2, 2])]
    """

    def __init__(self, backbone: str = "b2", in_channels: int = 3) -> None:
        super().__init__()
        if backbone not in SIZES:
            raise ValueError(f"`backbone` must be one of {', '.join(map(repr, SIZES))}, but got {backbone!r}.")
        self.name = backbone
        self.channels, depths = SIZES[backbone]
        config = _transformers("PvtV2Config")(
            num_channels=in_channels,
            hidden_sizes=self.channels,
            depths=depths,
            drop_path_rate=0.1,
            layer_norm_eps=1e-6,
            qkv_bias=True,
            out_features=STAGES,
        )
        self.pvt = _transformers("PvtV2Backbone")(config)
        for name, module in self.pvt.named_modules():
            if name.endswith(("patch_embedding.layer_norm", "attention.layer_norm")):
                module.eps = 1e-5
        self.stages = nn.ModuleList(nn.Identity() for _ in STAGES)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """
        Args:
            image: (B, in_channels, H, W), H and W divisible by 32.

        Returns:
            Four maps, at 1/4, 1/8, 1/16 and 1/32 of the size.
        """
        return tuple(stage(feature) for stage, feature in zip(self.stages, self.pvt(image).feature_maps))

    def load_imagenet(self, source: str | os.PathLike[str]) -> None:
        """
        Loads ImageNet weights; the classifier is left out.

        Args:
            source: a local file as PVTv2's authors publish them (``pvt_v2_b2.pth``: ``patch_embed1.*``, ``block1.*``,
                ...); or what transformers saved or published: a local folder, or a name on the Hugging Face hub
                (``OpenGVLab/pvt_v2_b2``), which is downloaded unless transformers has it in its cache.

        Raises:
            FileNotFoundError: when ``source`` names a weight file that does not exist.
            ValueError: when it cannot be read, or holds another network.
        """
        if Path(source).is_file() or Path(source).suffix in (".pth", ".pt", ".bin", ".safetensors"):
            content = f"the PVTv2 {self.name} of its authors"
            load_published(self.pvt, source, rename_published_pvt, "encoder_weights", content)
        else:
            self._load_pretrained(str(source))

    def _load_pretrained(self, source: str) -> None:
        rule = (
            f"`encoder_weights` must be a PVTv2 {self.name} in a local file or folder, or by its name on the Hugging "
            f"Face hub, but got {source!r}"
        )
        try:
            config = _transformers("PvtV2Config").from_pretrained(source)
            if (list(config.hidden_sizes), list(config.depths)) != SIZES[
                self.name
            ]:  # deeper ones would be cut silently
                raise ValueError(f"its stages have {config.hidden_sizes} channels and {config.depths} blocks")
            pretrained, info = _transformers("PvtV2Backbone").from_pretrained(
                source, config=self.pvt.config, output_loading_info=True, weights_only=True
            )
        except Exception as error:  # what is no PVTv2 fails in a dozen ways
            raise ValueError(f"{rule}: {shortened(' '.join(str(error).split()))}") from error
        if info["missing_keys"]:
            raise ValueError(f"{rule}, which lacks {', '.join(sorted(info['missing_keys'])[:3])}, ...")
        self.pvt.load_state_dict(pretrained.state_dict())


def rename_published_pvt(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """
    A state dict of PVTv2 with the names of transformers, of one with those of the published code. There key and value
    are one layer; the classifier ``head.*`` is left out, and names that are not of PVTv2 stay.

    Args:
        weights: with ``patch_embed1.*``, ``block1.*``, ``norm1.*``, ...

    Returns:
        With ``encoder.layers.0.*``, ...

    Example::

        >>> list(rename_published_pvt({"block2.0.attn.q.bias": torch.zeros(4), "head.bias": torch.zeros(9)}))
        ['encoder.layers.1.blocks.0.attention.query.bias']
    """
    renamed = {}
    for name, value in weights.items():
        if ".attn.kv." in name:
            key, value = value.chunk(2)
            renamed[_rename(name.replace(".kv.", ".key."))] = key
            renamed[_rename(name.replace(".kv.", ".value."))] = value
        elif not name.startswith("head."):
            renamed[_rename(name)] = value
    return renamed


def _rename(name: str) -> str:
    found = re.fullmatch(r"(patch_embed|block|norm)([1-4])\.(.+)", name)
    if found is None:
        return name
    part = {"patch_embed": "patch_embedding", "block": "blocks", "norm": "layer_norm"}[found[1]]
    name = f"encoder.layers.{int(found[2]) - 1}.{part}.{found[3]}"
    for published, ours in (
        (".norm1.", ".layer_norm_1."),
        (".norm2.", ".layer_norm_2."),
        (".norm.", ".layer_norm."),
        (".attn.", ".attention."),
        (".q.", ".query."),
        (".sr.", ".spatial_reduction."),
        (".fc1.", ".dense1."),
        (".fc2.", ".dense2."),
    ):
        name = name.replace(published, ours)
    return name


def _transformers(name: str) -> Any:
    return optional_import("transformers", name=name, descriptor="{}; `pip install monai-kd[transformers]` brings it")[
        0
    ]
