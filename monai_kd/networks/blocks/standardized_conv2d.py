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

"""A convolution whose weights are standardised before use."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class StandardizedConv2d(nn.Conv2d):
    r"""
    :py:class:`torch.nn.Conv2d` with the weights of each output channel brought to mean zero and variance one:

    .. math:: \hat w = \frac{w - \bar w}{\sqrt{\mathrm{var}(w) + 10^{-5}}}

    Qiao et al., Weight Standardization, arXiv:1903.10520, Eq. 7, as the released code of TransUNet has it. It goes with
    group normalisation where batches are too small for batch normalisation. Arguments as those of ``Conv2d``.

    Example::

        >>> import torch
        >>> StandardizedConv2d(3, 8, kernel_size=3, padding=1)(torch.zeros(2, 3, 16, 16)).shape
        torch.Size([2, 8, 16, 16])
    """

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # the same formula, computed in single precision where it must be
        weight = F.layer_norm(self.weight, self.weight.shape[1:], eps=1e-5)
        return self._conv_forward(x, weight, self.bias)
