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

"""ERFNet: a student of EMKD that its tables leave out."""

from __future__ import annotations

import torch
from monai.networks.blocks import ADN, Convolution
from torch import nn

from monai_kd.networks.blocks import ImageInput, NonBottleneck1D

NORM = ("batch", {"eps": 1e-3})


class ERFNet(nn.Module):
    """
    ERFNet for slices: an encoder to 1/8 of residual blocks with split and dilated kernels, and a decoder of transposed
    convolutions without skips.

    Romera et al., ERFNet, IEEE T-ITS 2018, Table I, as the released code of EMKD builds it (Qin et al., IEEE TMI 2021,
    which names ERFNet among its light networks and gives no numbers for it). That code drops channels at 0.03 at 1/4,
    at 0.3 at 1/8 and never in the decoder; so do we. Differences of ours from that code:

    - the classifier of the encoder is not built. There it stands for training the encoder alone, and its 258 parameters
      get no gradient otherwise, which DistributedDataParallel refuses;
    - two features can be captured by path (below). There only the logits are returned, so that its own training by
      distillation, which unpacks three values, fails.

    An image enters with its own channels, one of CT is not repeated, as there: 2,062,872 parameters for 1 channel and 2
    classes, in the released code 2,063,130. One slice of 384 x 384 costs 14.87 GFLOPs, counted as 2 x
    multiply-accumulate by torch.

    For distillation the maps at the scales where EMKD takes low and high, for an input of 384 x 384:

    ==================  ===============  ======================================================
    path                shape            what
    ==================  ===============  ======================================================
    ``encoder.stem``    16 x 192 x 192   first map at 1/2, after batch normalisation and ReLU
    ``encoder.stage2``  128 x 48 x 48    last map of the encoder, at 1/8, after ReLU
    ==================  ===============  ======================================================

    Args:
        in_channels: channels of the image, up to 15.
        out_channels: classes, background included.

    Raises:
        ValueError: when an argument is out of range, or the image is not (B, in_channels, H, W) with H and W divisible
            by 8.

    Example::

        >>> import torch
        >>> ERFNet(in_channels=1, out_channels=2).eval()(torch.zeros(1, 1, 64, 64)).shape
        torch.Size([1, 2, 64, 64])
    """

    def __init__(self, in_channels: int = 1, out_channels: int = 2) -> None:
        super().__init__()
        if out_channels < 1:
            raise ValueError(f"`out_channels` must be 1 or more, but got {out_channels}.")
        self.input = ImageInput(in_channels, divisor=8, repeat=False)
        self.encoder = nn.Sequential()  # 128, 1/8
        self.encoder.add_module("stem", _Downsampling(in_channels, 16))  # 16, 1/2
        self.encoder.add_module("down1", _Downsampling(16, 64))  # 64, 1/4
        self.encoder.add_module("stage1", nn.Sequential(*(NonBottleneck1D(64, dropout=0.03) for _ in range(5))))
        self.encoder.add_module("down2", _Downsampling(64, 128))  # 128, 1/8
        context = (NonBottleneck1D(128, dilation, dropout=0.3) for dilation in (2, 4, 8, 16, 2, 4, 8, 16))
        self.encoder.add_module("stage2", nn.Sequential(*context))
        self.decoder = nn.Sequential(
            _upsampling(128, 64),
            NonBottleneck1D(64),
            NonBottleneck1D(64),  # 1/4
            _upsampling(64, 16),
            NonBottleneck1D(16),
            NonBottleneck1D(16),  # 1/2
        )
        self.head = nn.ConvTranspose2d(16, out_channels, kernel_size=2, stride=2)  # 1/1

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """
        Args:
            image: (B, in_channels, H, W), H and W divisible by 8.

        Returns:
            Logits (B, out_channels, H, W).
        """
        return self.head(self.decoder(self.encoder(self.input(image))))


class _Downsampling(nn.Module):
    """A strided convolution beside the pooled input, as in the stem of ENet."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        if in_channels >= out_channels:
            raise ValueError(f"`in_channels` must be below {out_channels}, but got {in_channels}.")
        self.conv = Convolution(2, in_channels, out_channels - in_channels, kernel_size=3, strides=2, conv_only=True)
        # for the even sizes that enter, ceil_mode changes no value; it writes the size as that of the convolution is
        # written, without which torch.export cannot tell that both are equal
        self.pool = nn.MaxPool2d(kernel_size=2, ceil_mode=True)
        self.adn = ADN(in_channels=out_channels, act="relu", norm=NORM, norm_dim=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.adn(torch.cat([self.conv(x), self.pool(x)], dim=1))


def _upsampling(in_channels: int, out_channels: int) -> Convolution:
    """Twice the size by a transposed convolution."""
    return Convolution(
        2, in_channels, out_channels, strides=2, kernel_size=3, norm=NORM, act="relu", is_transposed=True
    )
