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

"""U-Net with pyramid squeeze attention: both teachers of XP-Net."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from monai.networks.blocks import Convolution
from monai.networks.nets.basic_unet import Down, TwoConv
from torch import nn

from monai_kd.networks.blocks import PyramidSqueezeAttention
from monai_kd.networks.nets._u_net import UNetOfXPNet


class EPSAUNet(UNetOfXPNet):
    """
    U-Net for endoscopic frames with pyramid squeeze attention inside its first block: convolution, attention,
    convolution at full size, where the small structures still are.

    Ragu B et al., XP-Net, EndoCV 2022 (CEUR-WS Vol. 3148), Sec. 2.2.1: both teachers. No code was released. The network
    without attention is the U-Net of Table 1, 7,763,041 parameters, exactly: 3 channels in and 1 out, convolutions
    without bias and with batch normalisation, transposed convolutions with bias.

    With attention there are 7,774,298; the paper has 7,774,374, 76 more. The groups 1, 4, 8, 16 that EPSANet was
    released with are impossible here: 16 does not divide the 8 channels of a branch. The default 1, 2, 4, 8 gives
    11,232 of the paper's 11,333 weights of attention, and the layers that weight the branches, which EPSANet shares
    between them, 25 (8 channels to 1 to 8). A set for each branch would make it 11,332; what the last one is, the
    paper does not say.

    Logits are returned, in the paper their sigmoid. One frame of 512 x 512 costs 102.5 GFLOPs, counted as
    2 x multiply-accumulate by torch.

    For distillation, the maps that XP-Net's discriminator sees (Sec. 2.2.3), for an input of 512 x 512:

    ==============  ===============  =====================================
    path            shape            what
    ==============  ===============  =====================================
    ``encoder1``    32 x 512 x 512   first block, with the attention
    ``encoder3``    128 x 128 x 128  third, at 1/4
    ``decoder1``    256 x 64 x 64    first block of the decoder, at 1/8
    ``decoder3``    64 x 256 x 256   third, at 1/2
    ==============  ===============  =====================================

    Args:
        in_channels: channels of the image; 1 is repeated to 3, any other number enters the first convolution as it is.
        out_channels: maps of logits, 1 for the sigmoid of the paper.
        groups: of the attention's convolutions with kernel 3, 5, 7 and 9, each a divisor of 8.

    Raises:
        ValueError: when an argument is out of range, or the image is not (B, in_channels, H, W) with H and W divisible
            by 16.

    Example::

        >>> import torch
        >>> EPSAUNet().eval()(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 1, 64, 64])
    """

    def __init__(self, in_channels: int = 3, out_channels: int = 1, groups: Sequence[int] = (1, 2, 4, 8)) -> None:
        conv = partial(Convolution, 2, act="relu", norm="batch", bias=False)

        def first(channels: int) -> nn.Sequential:
            return nn.Sequential(conv(channels, 32), PyramidSqueezeAttention(32, 32, groups=groups), conv(32, 32))

        down = partial(Down, 2, act="relu", norm="batch", bias=False)
        super().__init__(
            in_channels, out_channels, first, down, partial(TwoConv, 2, act="relu", norm="batch", bias=False)
        )
