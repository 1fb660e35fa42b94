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

"""The small training case that the tests of the handlers share: networks, data and losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader


class Net(nn.Module):
    """Three convolutions and between them what can go wrong in distillation: batch norm, in-place ReLU, dropout."""

    def __init__(
        self, channels: int = 4, dropout: float = 0.0, scales: int = 1, dims: int = 2, classes: int = 2
    ) -> None:
        super().__init__()
        conv, norm = (nn.Conv2d, nn.BatchNorm2d) if dims == 2 else (nn.Conv3d, nn.BatchNorm3d)
        self.encoder = conv(1, channels, 3, padding=1)
        self.norm = norm(channels)
        self.relu = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(dropout)
        self.middle = conv(channels, channels, 3, padding=1)
        self.head = conv(channels, classes, 1)
        self.scales = scales
        self.dims = dims

    def forward(self, image: torch.Tensor) -> Any:
        feature = self.middle(self.dropout(self.relu(self.norm(self.encoder(image)))))
        strides = [(..., *[slice(None, None, 2**i)] * self.dims) for i in range(self.scales)]
        outputs = [self.head(feature[stride]) for stride in strides]
        return outputs if self.scales > 1 and self.training else outputs[0]


def seeded(build: Callable[[], nn.Module], seed: int = 0) -> Any:
    """A network whose initial weights depend on the seed alone."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build()


def student_net(*, seed: int = 0, **kwargs: Any) -> Any:
    """A student's network; the same initial weights each time."""
    return seeded(lambda: Net(**kwargs), seed)


def teacher_net(**kwargs: Any) -> Any:
    """A teacher's network, with running statistics other than those of the student's data and active dropout."""
    network = seeded(lambda: Net(**({"channels": 6, "dropout": 0.5} | kwargs)), seed=1)
    network.norm.running_mean.fill_(0.1)
    network.norm.running_var.fill_(2.0)
    return network


def make_data(length: int = 8, size: int = 16, dims: int = 2, classes: int = 2) -> list[dict[str, torch.Tensor]]:
    """Images of noise, and labels that can be seen in them."""
    generator = torch.Generator().manual_seed(2)
    images = [torch.randn(1, *[size] * dims, generator=generator) for _ in range(length)]
    edges = torch.linspace(-1, 1, classes + 1)[1:-1]
    return [{"image": image, "label": torch.bucketize(image, edges).float()} for image in images]


def make_batches(**kwargs: Any) -> list[dict[str, torch.Tensor]]:
    """The batches of one epoch of the case."""
    return list(DataLoader(make_data(**kwargs), batch_size=2))


def soften(student: torch.Tensor, teacher: torch.Tensor, label: torch.Tensor | None = None) -> torch.Tensor:
    """A distillation loss between logits."""
    return F.kl_div(student.log_softmax(1), teacher.log_softmax(1), reduction="batchmean", log_target=True) / 64


def hint(student: torch.Tensor, teacher: torch.Tensor, label: torch.Tensor | None = None) -> torch.Tensor:
    """A distillation loss between maps."""
    return F.mse_loss(student, teacher)


def hooks_of(network: nn.Module) -> int:
    """How many hooks listen to the layers of a network."""
    return sum(len(module._forward_hooks) for module in network.modules())


def same(one: nn.Module, other: nn.Module) -> bool:
    """Whether two networks have the same weights and buffers, bit for bit."""
    first, second = one.state_dict(), other.state_dict()
    return list(first) == list(second) and all(torch.equal(first[key], second[key]) for key in first)
