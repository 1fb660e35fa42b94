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

"""Whether a network ends in a sigmoid, the one place that uses torch's dispatch modes."""

from __future__ import annotations

from typing import Any

import torch

from monai_kd._private_attributes import TorchDispatchMode, version_of

SIGMOIDS = (torch.ops.aten.sigmoid.default, torch.ops.aten.sigmoid_.default, torch.ops.aten.hardsigmoid.default)


class LastSigmoid(TorchDispatchMode):
    """
    Sees the operations of a forward pass, TorchScript's too, and keeps the result of the last sigmoid.

    Example::

        >>> import torch
        >>> with LastSigmoid() as last:
        ...     logits = torch.sigmoid(torch.zeros(1, 1, 2, 2)) - 1
        >>> last.is_result(logits)
        False
    """

    def __init__(self) -> None:
        super().__init__()
        self._result: torch.Tensor | None = None  # held, so that nothing else comes to lie in its memory
        self._version = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Call the operation."""
        result = func(*args, **(kwargs or {}))
        if func in SIGMOIDS and not result.is_inference():
            self._result, self._version = result, version_of(result)
        return result

    def is_result(self, output: torch.Tensor) -> bool:
        """Whether the output is what the last sigmoid gave, or a part of it."""
        last = self._result
        if last is None or last.data_ptr() != output.data_ptr():
            return False
        return version_of(last) == self._version  # later changed in place, as a gate is
