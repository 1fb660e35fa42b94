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

"""The transformer of ViT hybrids: a map enters, every place sees all others, a map leaves."""

from __future__ import annotations

import torch
from monai.networks.blocks import MLPBlock
from torch import nn
from torch.nn import functional as F


class ViTEncoder(nn.Module):
    """
    The transformer of ViT (Dosovitskiy et al., ICLR 2021, arXiv:2010.11929, Eq. 1 to 4) over the places of a map, each
    of them a token; without a class token, as in TransUNet (Chen et al., arXiv:2102.04306, Sec. 3.1).

    Dropout acts on the tokens and in the feed-forward network, as in the released code, not on the attention. Position
    embeddings are a map that is resized bilinearly, corners to corners, to that which enters. MONAI's
    ``TransformerBlock`` has other dropout, another epsilon, and the weights of a second attention that is not called;
    :py:class:`torch.nn.TransformerEncoderLayer`, traced to ONNX, is bound to one size.

    Args:
        in_channels: channels of the map that enters.
        hidden_size: channels of a token, divisible by ``num_heads``.
        mlp_dim: channels inside the feed-forward network.
        num_heads: of the attention.
        num_layers: how many follow each other.
        grid: height and width of the position embeddings.
        dropout_rate: from 0 to 1.

    Example::

        >>> import torch
        >>> ViTEncoder(8, hidden_size=16, mlp_dim=32, num_heads=2, num_layers=1, grid=4)(torch.zeros(1, 8, 4, 6)).shape
        torch.Size([1, 16, 4, 6])
    """

    def __init__(
        self,
        in_channels: int,
        hidden_size: int = 768,
        mlp_dim: int = 3072,
        num_heads: int = 12,
        num_layers: int = 12,
        grid: int = 14,
        dropout_rate: float = 0.1,
    ) -> None:
        super().__init__()
        self.embedding = nn.Conv2d(in_channels, hidden_size, kernel_size=1)
        self.position = nn.Parameter(torch.zeros(1, hidden_size, grid, grid))
        self.dropout = nn.Dropout(dropout_rate)
        self.layers = nn.Sequential(*(_Layer(hidden_size, mlp_dim, num_heads, dropout_rate) for _ in range(num_layers)))
        self.norm = nn.LayerNorm(hidden_size, eps=1e-6)

    def forward(self, feature: torch.Tensor) -> torch.Tensor:
        """
        Args:
            feature: (B, in_channels, h, w).

        Returns:
            (B, hidden_size, h, w).
        """
        x = self.embedding(feature)
        batch, channels, height, width = x.shape
        position = F.interpolate(self.position, size=(height, width), mode="bilinear", align_corners=True)
        x = self.dropout((x + position).flatten(2).transpose(1, 2))  # (B, h w, hidden_size)
        x = self.norm(self.layers(x))
        return x.transpose(1, 2).reshape(batch, channels, height, width)


class _Layer(nn.Module):
    """Attention, then two layers on each token by itself; each behind a normalisation and beside the identity."""

    def __init__(self, hidden_size: int, mlp_dim: int, num_heads: int, dropout_rate: float) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.norm1 = nn.LayerNorm(hidden_size, eps=1e-6)
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size)
        self.projection = nn.Linear(hidden_size, hidden_size)
        self.norm2 = nn.LayerNorm(hidden_size, eps=1e-6)
        self.mlp = MLPBlock(hidden_size, mlp_dim, dropout_rate)
        for linear in (self.mlp.linear1, self.mlp.linear2):  # as in the released code
            nn.init.xavier_uniform_(linear.weight)
            nn.init.normal_(linear.bias, std=1e-6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self._attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))

    def _attention(self, x: torch.Tensor) -> torch.Tensor:
        qkv = self.qkv(x).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)  # (3, B, head, token, C / head)
        mixed = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2])
        return self.projection(mixed.transpose(1, 2).flatten(2))
