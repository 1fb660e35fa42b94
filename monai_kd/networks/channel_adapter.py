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

"""The projection that makes a student's feature comparable with a teacher's."""

from __future__ import annotations

import torch
from monai.networks.layers.factories import Conv
from torch import nn
from torch.nn import functional as F

from monai_kd.networks.isolated_rng import isolated_rng


class ChannelAdapter(nn.Module):
    """
    Maps a student's feature to the channels, and where asked to the size, of a teacher's: a convolution of kernel 1
    without bias, as FitNet's regressor in segmentation codes, then a linear interpolation.

    Its parameters are trained with the student's and are no part of it: the
    :py:class:`~monai_kd.handlers.DistillationHandler` brings them to the optimizer, the checkpoint and all ranks.
    Building one leaves torch's random state alone.

    Args:
        in_channels: channels of the student's feature.
        out_channels: channels of the teacher's feature.
        spatial_dims: 2 or 3.
        scale_factor: size of the teacher's feature / size of the student's.

    Raises:
        ValueError: when an argument is not positive or ``spatial_dims`` is not 2 or 3.

    Example::

        >>> import torch
        >>> ChannelAdapter(16, 32, scale_factor=2.0)(torch.zeros(1, 16, 8, 8)).shape
        torch.Size([1, 32, 16, 16])
    """

    def __init__(self, in_channels: int, out_channels: int, spatial_dims: int = 2, scale_factor: float = 1.0) -> None:
        super().__init__()
        sizes = {"in_channels": in_channels, "out_channels": out_channels, "scale_factor": scale_factor}
        for name, value in sizes.items():
            if value <= 0:
                raise ValueError(f"`{name}` must be positive, but got {value}.")
        if spatial_dims not in (2, 3):
            raise ValueError(f"`spatial_dims` must be 2 or 3, but got {spatial_dims}.")
        self.scale_factor = float(scale_factor)
        self.mode = "bilinear" if spatial_dims == 2 else "trilinear"
        with isolated_rng():
            self.projection = Conv[Conv.CONV, spatial_dims](in_channels, out_channels, kernel_size=1, bias=False)

    def forward(self, feature: torch.Tensor) -> torch.Tensor:
        """
        Args:
            feature: (B, in_channels, *spatial).

        Returns:
            (B, out_channels, *spatial * scale_factor).
        """
        if feature.shape[1] != self.projection.in_channels:
            raise ValueError(
                f"`feature` must have {self.projection.in_channels} channels, but got {feature.shape[1]}; "
                f"build `ChannelAdapter({feature.shape[1]}, {self.projection.out_channels})`."
            )
        feature = self.projection(feature)
        if self.scale_factor != 1.0:
            feature = F.interpolate(feature, scale_factor=self.scale_factor, mode=self.mode, align_corners=False)
        return feature
