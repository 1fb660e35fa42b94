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

"""The door of a two-dimensional network: shapes are checked once, a single channel becomes three."""

from __future__ import annotations

import torch
from torch import nn


class ImageInput(nn.Module):
    """
    Checks the image that enters a network, and repeats a single channel (CT) to the three that ImageNet weights expect.

    A network that halves its input ``n`` times and adds skip connections gives a map of the input's size only if H and
    W are multiples of ``2 ** n``; other sizes fail deep inside, or broadcast without a word. The check holds in
    eager mode, under ``torch.compile``, in a scripted module and in an exported program (``torch.export``, as a guard);
    a trace and an ONNX file cannot hold it.

    Args:
        in_channels: channels of the image, 1 or more.
        divisor: what H and W must be divisible by.
        repeat: whether a single channel becomes three; False for networks that take it as it is.

    Attributes:
        out_channels: channels that leave: 3 for a single channel that is repeated, otherwise ``in_channels``.

    Raises:
        ValueError: when an argument is not positive; when the image is not (B, in_channels, H, W), or its H or W is not
            divisible by ``divisor``.

    Example::

        >>> import torch
        >>> ImageInput(in_channels=1, divisor=8)(torch.zeros(2, 1, 16, 24)).shape
        torch.Size([2, 3, 16, 24])
    """

    def __init__(self, in_channels: int, divisor: int, repeat: bool = True) -> None:
        super().__init__()
        for name, value in (("in_channels", in_channels), ("divisor", divisor)):
            if value < 1:
                raise ValueError(f"`{name}` must be 1 or more, but got {value}.")
        self.in_channels = in_channels
        self.divisor = divisor
        self.repeat = repeat and in_channels == 1
        self.out_channels = 3 if self.repeat else in_channels

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """
        Args:
            image: (B, in_channels, H, W).

        Returns:
            (B, out_channels, H, W).
        """
        if not torch.jit.is_tracing():  # a trace cannot hold a condition
            self._check(image)
        return image.repeat(1, 3, 1, 1) if self.repeat else image

    def _check(self, image: torch.Tensor) -> None:
        if image.dim() != 4 or image.shape[1] != self.in_channels:
            raise ValueError(
                f"`image` must be (B, {self.in_channels}, H, W), but got {list(image.shape)}; "
                "set `in_channels` of the network, or take slices of a volume by `monai.inferers.SliceInferer`."
            )
        height, width = image.shape[2], image.shape[3]
        if height % self.divisor != 0 or width % self.divisor != 0:
            raise ValueError(
                f"`image` must have H and W divisible by {self.divisor}, but got {height} and {width}; "
                f"pad by `monai.transforms.DivisiblePadd(k={self.divisor})`, or give the inferer such a `roi_size`."
            )
