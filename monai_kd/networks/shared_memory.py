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

"""Whether tensors of two networks lie in the same memory."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import nn
from torch.nn.parameter import is_lazy

Named = Mapping[str, torch.Tensor]


class _Span(NamedTuple):
    """The bytes between the first and the last element of a tensor."""

    device: str
    start: int
    end: int
    owner: int  # 0 or 1
    name: str
    tensor: torch.Tensor


def named_tensors(network: nn.Module, prefix: str = "") -> dict[str, torch.Tensor]:
    """The parameters and buffers of a network by name."""
    found = dict(network.named_parameters(prefix=prefix))
    return found | dict(network.named_buffers(prefix=prefix))


def shared_memory(one: Named, other: Named) -> tuple[str, str] | None:
    """
    Find two tensors with an element in common, whatever objects hold them: the same parameter, a view,
    ``load_state_dict(assign=True)``, weights flattened into one storage. Tensors of one owner may share.

    Args:
        one: tensors by name.
        other: tensors by name.

    Returns:
        the names of the first such pair, or None.

    Example::

        >>> import torch
        >>> flat = torch.zeros(6)
        >>> shared_memory({"a": flat[:4]}, {"b": flat[4:], "c": flat[3:]})
        ('a', 'c')
    """
    spans = sorted([*_spans(one, 0), *_spans(other, 1)], key=lambda span: span[:3])
    earlier: list[_Span] = []
    for span in spans:
        earlier = [each for each in earlier if each.device == span.device and each.end > span.start]
        for each in earlier:
            if each.owner != span.owner and _overlap(each.tensor, span.tensor):
                first, second = (each, span) if each.owner == 0 else (span, each)
                return first.name, second.name
        earlier.append(span)
    return None


def _spans(tensors: Named, owner: int) -> Iterator[_Span]:
    for name, tensor in tensors.items():
        if is_lazy(tensor) or tensor.layout != torch.strided or tensor.numel() == 0:
            continue
        start = tensor.data_ptr()
        if start == 0:  # no memory, as on the device "meta"
            continue
        yield _Span(str(tensor.device), start, start + _extent(tensor), owner, name, tensor)


def _extent(tensor: torch.Tensor) -> int:
    last = sum((size - 1) * stride for size, stride in zip(tensor.shape, tensor.stride()))
    return (last + 1) * tensor.element_size()


def _overlap(one: torch.Tensor, other: torch.Tensor) -> bool:
    """Whether tensors whose spans overlap do; those with gaps, as columns of a matrix, need not."""
    gaps = any(_extent(each) > each.numel() * each.element_size() for each in (one, other))
    if not gaps or one.element_size() != other.element_size():
        return True
    return bool(torch.isin(_addresses(one), _addresses(other)).any())


def _addresses(tensor: torch.Tensor) -> torch.Tensor:
    offsets = torch.zeros(1, dtype=torch.int64)
    for size, stride in zip(tensor.shape, tensor.stride()):
        steps = stride * torch.arange(size)
        offsets = (offsets[:, None] + steps).flatten()
    return tensor.data_ptr() + tensor.element_size() * offsets


def numbered(tensors: Iterable[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Tensors that have no names, by their number."""
    return {str(number): tensor for number, tensor in enumerate(tensors)}
