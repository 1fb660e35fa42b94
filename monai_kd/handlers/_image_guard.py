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

"""Whether the teacher sees the image that the student saw."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from monai_kd._private_attributes import version_of
from monai_kd.networks.feature_capture import is_compiled


class ImageGuard:
    """
    Notices a forward pass that writes into its own input, from torch's count of the changes of a tensor: the teacher,
    who is asked after the student, would see the changed image. It looks between :py:meth:`arm` and :py:meth:`check`
    alone, and not into TorchScript networks and networks compiled in place, which run no such hook.

    Args:
        network: the network that the trainer calls with the image.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self._versions: dict[int, int] | None = None
        self._handle: RemovableHandle | None = None
        self._scripted = isinstance(network, torch.jit.ScriptModule)
        self._compiled = is_compiled(network)  # it would be compiled anew for a hook that comes and goes
        if self._compiled:
            self._register()

    def _register(self) -> None:
        if self._handle is None and not self._scripted:
            self._handle = self.network.register_forward_pre_hook(self)

    def __call__(self, network: nn.Module, inputs: tuple[Any, ...]) -> None:
        """The hook, an object because a closure would make the network impossible to pickle."""
        if torch.compiler.is_compiling() or self._versions is None:
            return
        for given in inputs:
            if isinstance(given, torch.Tensor) and not given.is_inference():  # which have no such count
                self._versions.setdefault(id(given), version_of(given))

    def arm(self) -> None:
        """Look at the coming forward pass."""
        self._versions = {}
        self._register()

    def check(self, image: Any) -> None:
        """
        Args:
            image: what the trainer has called the network with.

        Raises:
            ValueError: when the network has changed it.
        """
        before = {} if self._versions is None else self._versions
        self._versions = None
        if not self._compiled:
            self.remove()
        if id(image) in before and before[id(image)] != version_of(image):
            raise ValueError(
                "`network` must not write into its input, but got a student that changes the image in place, which the "
                "teacher would see; begin its forward with `image = image.clone()`."
            )

    def remove(self) -> None:
        """Unregister the hook."""
        if self._handle is not None:
            self._handle.remove()
        self._handle = None
