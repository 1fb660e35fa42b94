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

"""Recording the inner feature maps of a network by layer name."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from monai_kd._private_attributes import compiled_inside, is_compiled_module, version_of

# attribute of an in-place activation: how many captures have switched it off; the last to go switches it on again
SWITCHED_OFF = "monai_kd_switched_off"


def unwrap(network: nn.Module) -> nn.Module:
    """The network inside `torch.compile`, `DataParallel` and `DistributedDataParallel`."""
    inner: Any = network
    while True:
        if isinstance(inner, (nn.DataParallel, nn.parallel.DistributedDataParallel)):
            inner = inner.module
        elif compiled_inside(inner) is not None:
            inner = compiled_inside(inner)
        else:
            return inner


def is_compiled(network: nn.Module) -> bool:
    """Whether the network or a part of it was compiled."""
    return any(map(is_compiled_module, network.modules()))


def forget_compiled(network: nn.Module) -> None:
    """Drop compiled graphs if the network has one, which would not see hooks that came after it."""
    if is_compiled(network):
        torch.compiler.reset()


def _is_inplace(module: nn.Module) -> bool:
    return getattr(module, "inplace", False) is True


class _Hook:
    """A forward hook as an object, because a closure would make the hooked network impossible to pickle."""

    def __init__(self, capture: FeatureCapture, layer: str) -> None:
        self.capture = capture
        self.layer = layer

    def __call__(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if self.capture.enabled:
            self.capture._record(self.layer, output)


class FeatureCapture:
    """
    Records what named layers of a network return in a forward pass.

    Hooks are registered when the object is made; what was compiled until then is dropped and compiled again at the
    next call, since a compiled network skips later hooks without a word. In-place activations of the network are
    switched to out-of-place until :py:meth:`remove`, since one that follows a captured layer would rewrite its map.
    A network may have several captures; each records and is removed for itself.

    Between :py:meth:`pause` and :py:meth:`resume` the network has no hook of it, so that a copy or a pickle of the
    network has none either. A compiled network keeps its hooks until :py:meth:`remove`: it would be compiled anew.

    Args:
        network: the network to listen to; wrapped ones (compiled, DDP) are looked into.
        layers: dotted module paths, as in ``network.named_modules()``.
        compiled: whether the network runs compiled; looked up in it where None.

    Raises:
        ValueError: when a layer is unknown (the five nearest names are given), or the network is TorchScript.

    Example::

        >>> import torch
        >>> network = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.Conv2d(4, 2, 3))
        >>> with FeatureCapture(network, ["0"]) as capture:
        ...     logits = network(torch.zeros(1, 1, 8, 8))
        ...     capture["0"].shape
        torch.Size([1, 4, 6, 6])
    """

    def __init__(self, network: nn.Module, layers: Sequence[str], compiled: bool | None = None) -> None:
        self.network = unwrap(network)
        self.layers = tuple(dict.fromkeys([layers] if isinstance(layers, str) else layers))
        self.enabled = True
        self._outputs: dict[str, Any] = {}
        self._calls: dict[str, int] = {}
        self._versions: dict[str, int] = {}
        modules = [self._find(layer) for layer in self.layers]
        self._hooks = [(module, _Hook(self, layer)) for module, layer in zip(modules, self.layers)]
        self._handles: list[RemovableHandle] = []
        self._inplace: list[Any] = []
        self._compiled = is_compiled(network) if compiled is None else compiled
        self.resume()
        if modules:
            forget_compiled(network)

    def _find(self, layer: str) -> nn.Module:
        if isinstance(self.network, torch.jit.ScriptModule):
            raise ValueError(
                f"layer `{layer}` cannot be captured: a TorchScript network gives its logits only; "
                "load its weights into the Python network that it was made from."
            )
        modules = dict(self.network.named_modules())
        if layer not in modules or layer == "":
            nearest = difflib.get_close_matches(layer, [name for name in modules if name], n=5, cutoff=0.0)
            raise ValueError(
                f"`layer` must be a module of {type(self.network).__name__}, but got `{layer}`; "
                f"the nearest names are {', '.join(f'`{name}`' for name in nearest)}."
            )
        return modules[layer]

    def _switch_off(self) -> list[Any]:
        modules = [m for m in self.network.modules() if hasattr(m, SWITCHED_OFF) or _is_inplace(m)]
        for module in modules:
            module.inplace = False  # type: ignore[assignment]
            setattr(module, SWITCHED_OFF, getattr(module, SWITCHED_OFF, 0) + 1)
        return modules

    def _record(self, layer: str, output: Any) -> None:
        self._outputs[layer] = output
        self._calls[layer] = self._calls.get(layer, 0) + 1
        if isinstance(output, torch.Tensor) and not torch.compiler.is_compiling():
            self._versions[layer] = version_of(output)

    def __getitem__(self, layer: str) -> torch.Tensor:
        """The map (B, C, *spatial) that ``layer`` returned in the last forward pass."""
        if layer not in self._outputs:
            raise RuntimeError(
                f"layer `{layer}` was not captured in this forward pass: the network did not call it, "
                "or was compiled and called before the capture was made."
            )
        output = self._outputs[layer]
        if not isinstance(output, torch.Tensor):
            raise RuntimeError(
                f"layer `{layer}` must return one tensor, but got {type(output).__name__}; choose a layer inside it."
            )
        if self._calls[layer] > 1:
            raise RuntimeError(
                f"layer `{layer}` must be called once per forward pass, but got {self._calls[layer]} calls; "
                "choose a layer that is not shared, train with `SimpleInferer`, or `clear()` between passes."
            )
        if self._versions.get(layer, version_of(output)) != version_of(output):
            raise RuntimeError(
                f"the map of layer `{layer}` was changed in place after the layer returned it; "
                "capture the layer that changes it, or write that operation out of place."
            )
        return output

    @property
    def features(self) -> dict[str, torch.Tensor]:
        """All captured maps by layer name."""
        return {layer: self[layer] for layer in self.layers}

    def clear(self) -> None:
        """Forget the captured maps, and with them the graph that they keep alive."""
        for store in (self._outputs, self._calls, self._versions):
            store.clear()

    @property
    def removed(self) -> bool:
        """Whether it has no layer, or will not record again."""
        return not self._hooks

    def resume(self) -> None:
        """Record from now on."""
        self.enabled = True
        if self._hooks and not self._inplace:
            self._inplace = self._switch_off()
        if not self._handles:
            self._handles = [module.register_forward_hook(hook) for module, hook in self._hooks]

    def unhook(self) -> None:
        """Record no more until :py:meth:`resume`; in-place activations stay off, as a backward pass may need."""
        self.enabled = False
        if not self._compiled:
            self._remove_hooks()

    def pause(self) -> None:
        """Record no more until :py:meth:`resume`, and leave the network as it was."""
        self.unhook()
        if not self._compiled:
            self._switch_on()

    def remove(self) -> None:
        """Unregister the hooks for good and give the network its in-place activations back."""
        self._remove_hooks()
        self._switch_on()
        self._hooks = []
        self.clear()

    def _remove_hooks(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _switch_on(self) -> None:
        for module in self._inplace:
            others = getattr(module, SWITCHED_OFF) - 1
            if others > 0:
                setattr(module, SWITCHED_OFF, others)
            else:
                delattr(module, SWITCHED_OFF)
                module.inplace = True
        self._inplace = []

    def __enter__(self) -> FeatureCapture:
        return self

    def __exit__(self, *exception: object) -> None:
        self.remove()
