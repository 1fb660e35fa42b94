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

"""U-Net of separable convolutions with pyramid squeeze attention: the student of XP-Net."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from monai_kd.networks.blocks import PyramidSqueezeAttention, SeparableConvolution
from monai_kd.networks.nets._u_net import UNetOfXPNet


class SeparableEPSAUNet(UNetOfXPNet):
    """
    The U-Net of XP-Net's teachers with separable convolutions: a kernel along the rows, then one along the columns,
    each within its channel and followed by a convolution of kernel 1; with pyramid squeeze attention between the two of
    the first block.

    Ragu B et al., XP-Net, EndoCV 2022 (CEUR-WS Vol. 3148), Sec. 2.2.2: the student. No code was released. The paper
    calls the kernels (1, 5) and (5, 1) point-wise and (1, 1) depth-wise; taken at its word that makes 4,628,065
    parameters before attention, so the names are read as exchanged. Transposed convolutions are not separable. All
    start from Kaiming's uniform initialisation (Sec. 3.2), as PyTorch's layers do by themselves.

    It has 1,513,033 parameters: 1,501,776 and 11,257 of attention (:py:class:`EPSAUNet`). The paper has 1,839,333; the
    326,300 more are unexplained. No way was found to reach that number with other orders, repetitions, biases,
    normalisations and upsamplings of such layers, so that the plain reading stands: 19% of the teacher, there 24%.

    Logits are returned, in the paper their sigmoid. One frame of 512 x 512 costs 21.1 GFLOPs, counted as
    2 x multiply-accumulate by torch, a fifth of the teacher's.

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
        >>> SeparableEPSAUNet().eval()(torch.zeros(1, 3, 64, 64)).shape
        torch.Size([1, 1, 64, 64])
    """

    def __init__(self, in_channels: int = 3, out_channels: int = 1, groups: Sequence[int] = (1, 2, 4, 8)) -> None:
        def first(channels: int) -> nn.Sequential:
            rows, columns = _pair(channels, 32)
            return nn.Sequential(rows, PyramidSqueezeAttention(32, 32, groups=groups), columns)

        super().__init__(in_channels, out_channels, first, _down, _convs)


def _down(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(nn.MaxPool2d(kernel_size=2), *_pair(in_channels, out_channels))


def _convs(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(*_pair(in_channels, out_channels))


def _pair(in_channels: int, out_channels: int) -> tuple[SeparableConvolution, SeparableConvolution]:
    """A kernel along the rows and one along the columns."""
    return (
        SeparableConvolution(in_channels, out_channels, kernel_size=(1, 5)),
        SeparableConvolution(out_channels, out_channels, kernel_size=(5, 1)),
    )
