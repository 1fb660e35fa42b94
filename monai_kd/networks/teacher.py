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

"""The one owner that guards a teacher."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import nn

from monai_kd.networks._plain import plain
from monai_kd.networks.bundle_config import inference_loader
from monai_kd.networks.feature_capture import FeatureCapture, is_compiled, unwrap
from monai_kd.networks.isolated_rng import isolated_rng
from monai_kd.networks.knowledge import Knowledge
from monai_kd.networks.last_sigmoid import LastSigmoid
from monai_kd.networks.load_network import load_bundle_network, load_torchscript
from monai_kd.networks.load_weights import load_weights
from monai_kd.networks.output_check import OutputCheck, check_outputs, logits_of, probabilities_message
from monai_kd.networks.random_weights import check_not_random
from monai_kd.networks.shared_memory import named_tensors


def as_outputs(prediction: torch.Tensor | Sequence[torch.Tensor], image: Any) -> list[torch.Tensor]:
    """
    The outputs of a forward pass as a list, the one of full resolution first. A tensor with one dimension more than
    the image holds them stacked, (B, outputs, C, *spatial), as MONAI's ``DynUNet`` gives them in train mode.
    """
    if isinstance(prediction, torch.Tensor):
        stacked = prediction.ndim - 1 == getattr(image, "ndim", None)  # a student may see something else than a tensor
        return list(plain(prediction).unbind(1)) if stacked else [prediction]
    outputs = prediction
    if not isinstance(outputs, (list, tuple)) or not all(isinstance(output, torch.Tensor) for output in outputs):
        raise ValueError(
            f"a network must return one logits tensor or a list of them, but got {type(prediction).__name__}; "
            "wrap it in a module that returns its logits."
        )
    if any(output.shape[2:].numel() > outputs[0].shape[2:].numel() for output in outputs):
        raise ValueError(
            "a network that returns several outputs must return the one of full resolution first, but got "
            f"{[tuple(output.shape[2:]) for output in outputs]}; wrap it in a module that reverses them."
        )
    return list(outputs)


class Teacher:
    """
    A trained network that only speaks: frozen, in eval mode whatever anybody sets, run without gradient.

    It is no :py:class:`torch.nn.Module`, so that a student, an optimizer, DDP, a checkpoint or an export that holds it
    does not see its weights. Several handlers may share one.

    Args:
        network: one of: a module; a callable without arguments that builds one (in a bundle: the ``_target_`` block
            with ``_mode_: callable``), called without moving the random state from which the student is initialised;
            the folder of a MONAI bundle, whose ``network_def`` is taken with the weights that its inference loads; a
            TorchScript file (logits only). Reading a bundle's configuration runs the code in it: use bundles that you
            trust.
        checkpoint: file of weights for ``network``: a state dict or MONAI's ``CheckpointSaver`` file (``.pt``), or
            ``.safetensors``. Read with ``weights_only=True``, always. A callable needs it, unless it builds the same
            weights each time; a module may have its weights already.
        checkpoint_key: entry of the checkpoint that holds the weights, if it holds several.
        image_key: entry of the batch that this teacher sees, if its preprocessing differs from the student's. The
            network gets a copy of it, so that nothing it writes there is seen by others.
        override: values of the bundle's configuration by id, ``{"network_def": {...}}``.
        outputs: what the network returns: ``"logits"``; ``"softmax"`` for probabilities that sum to 1 over the
            channels, or of the foreground in one channel; ``"sigmoid"`` for those of channels that are independent.
            Probabilities p are turned into logits, log(p) but for a constant, or log(p / (1 - p)). None: logits, and
            a warning where the first batches look like probabilities.

    Raises:
        FileNotFoundError: when the checkpoint, the bundle or its weights are missing.
        ValueError: when the checkpoint is of another architecture, or a pickle with code in it; there is none for a
            callable that builds random weights; or (as it runs) ``outputs`` does not fit the values.

    Example::

        >>> import torch
        >>> teacher = Teacher(torch.nn.Conv2d(1, 2, 3, padding=1))
        >>> teacher(torch.zeros(1, 1, 8, 8)).logits.requires_grad
        False
    """

    def __init__(
        self,
        network: nn.Module | Callable[[], nn.Module] | str | PathLike,
        checkpoint: str | PathLike | None = None,
        checkpoint_key: str | None = None,
        image_key: str = "image",
        outputs: str | None = None,
        override: Mapping[str, Any] | None = None,
    ) -> None:
        check_outputs(outputs)
        self.outputs = outputs
        self.image_key = image_key
        folder = Path(network) if isinstance(network, (str, PathLike)) and Path(network).is_dir() else None
        if override and folder is None:
            raise ValueError(f"`override` must be for a bundle folder, but got {network!r}; leave it out.")
        self.network = self._build(network) if folder is None else _bundle_network(folder, override)
        likely = None
        if checkpoint is None and folder is not None:
            checkpoint, likely = inference_loader(folder) or (folder / "models" / "model.pt", None)
        source = network if checkpoint is None else checkpoint
        self.weights_files = [Path(source)] if isinstance(source, (str, PathLike)) else []
        if checkpoint is not None:
            load_weights(unwrap(self.network), checkpoint, checkpoint_key, likely)
        elif not isinstance(network, (nn.Module, str, PathLike)):
            check_not_random(self.network, network)
        for parameter in self.network.parameters():  # TorchScript has no `requires_grad_` for all of them
            parameter.requires_grad_(False)
        self._guard()
        self._captures: list[FeatureCapture] = []
        self._output_check = OutputCheck()
        self._asked = False

    @classmethod
    def from_nnunet(
        cls,
        folder: str | PathLike,
        folds: int | str | Sequence[int | str] | None = None,
        checkpoint: str = "final",
        deep_supervision: bool = False,
    ) -> Any:
        """
        Take what nnU-Net trained. Needs the package nnunetv2.

        Args:
            folder: ``RESULTS/DatasetXXX_NAME/TRAINER__PLANS__CONFIGURATION``.
            folds: one fold or several, whose teachers form a team; all that were trained where None.
            checkpoint: ``"final"``, ``"best"`` or ``"latest"``.
            deep_supervision: whether the teacher gives all outputs, from the full resolution downwards.

        Returns:
            a :py:class:`Teacher`, of several folds a :py:class:`~monai_kd.networks.TeacherTeam`.

        Raises:
            ImportError: when nnunetv2 is not installed.
            FileNotFoundError: when the folder, a fold or the checkpoint is missing.
            ValueError: when a checkpoint is damaged, holds code, or weights of another network.
        """
        from monai_kd.networks.load_nnunet import load_nnunet, trained_folds
        from monai_kd.networks.teacher_team import TeacherTeam

        if folds is None:
            folds = trained_folds(folder, checkpoint) or [0]
        chosen = [folds] if isinstance(folds, (int, str)) else list(folds)
        with isolated_rng():
            networks = {f"fold_{fold}": load_nnunet(folder, fold, checkpoint, deep_supervision) for fold in chosen}
        teachers = {name: cls(network, outputs="logits") for name, network in networks.items()}
        return TeacherTeam(teachers) if len(teachers) > 1 else next(iter(teachers.values()))

    @staticmethod
    def _build(network: nn.Module | Callable[[], nn.Module] | str | PathLike) -> nn.Module:
        if isinstance(network, nn.Module):
            return network
        with isolated_rng():
            if isinstance(network, (str, PathLike)):
                return load_torchscript(Path(network))
            built = network() if callable(network) else network
        if not isinstance(built, nn.Module):
            raise TypeError(
                "`network` must be a module, a callable that builds one, a bundle folder or a TorchScript file, "
                f"but got {type(built).__name__}."
            )
        return built

    def _guard(self) -> None:
        if any(getattr(module, "training", False) for module in self.network.modules()):
            self.network.eval()

    @torch.no_grad()
    def __call__(self, image: torch.Tensor | Mapping[str, torch.Tensor]) -> Knowledge:
        """
        Args:
            image: (B, C, *spatial), or a mapping that holds it under ``image_key``.

        Returns:
            the logits and the captured features.
        """
        self._guard()
        self._captures = captures = [capture for capture in self._captures if not capture.removed]
        given = self._select(image)
        try:
            for capture in captures:
                capture.resume()
            outputs = self._forward(given)
            features = {layer: feature for capture in captures for layer, feature in capture.features.items()}
            return Knowledge(outputs, features)
        finally:
            for capture in captures:
                capture.pause()
                capture.clear()

    def _forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        given = image.clone()  # whatever the network writes into it, the batch and the data set's cache stay
        first, self._asked = not self._asked, True
        if self.outputs is not None:
            outputs = as_outputs(self.network(given), image)
            probable = self.outputs != "logits"
            return [logits_of(each, self.outputs, check=first) for each in outputs] if probable else outputs
        watched = first and not is_compiled(self.network)
        with LastSigmoid() if watched else nullcontext() as last:
            outputs = as_outputs(self.network(given), image)
        self._warn_of(self._output_check(outputs[0], sigmoid=last is not None and last.is_result(outputs[0])))
        return outputs

    def _warn_of(self, found: str | None) -> None:
        """Say once that the network gives probabilities."""
        if found is not None:
            who = f"the `network` {type(self.network).__name__} of a `Teacher`"
            remedy = f"pass `Teacher(..., outputs='{found}')`, or `outputs='logits'` if they are logits"
            warnings.warn(probabilities_message(who, found, remedy), stacklevel=2)

    def _select(self, image: torch.Tensor | Mapping[str, torch.Tensor]) -> torch.Tensor:
        selected = plain(image if isinstance(image, torch.Tensor) else image[self.image_key])
        # the images are of the student's precision
        return selected.to(next((p.dtype for p in self.parameters() if p.is_floating_point()), selected.dtype))

    @property
    def members(self) -> dict[str, Teacher]:
        """The teachers of a team by name; a single teacher has none."""
        return {}

    @property
    def image_keys(self) -> set[str]:
        """The entries of the batch that the teacher needs."""
        return {self.image_key}

    def capture(self, layers: Sequence[str], member: str | None = None) -> FeatureCapture:
        """Record these layers at each call from now on, beside those of other captures, until it is removed."""
        capture = FeatureCapture(self.network, layers)
        capture.pause()
        self._captures.append(capture)
        return capture

    def to(self, device: torch.device | str) -> Teacher:
        """Move the weights to a device."""
        self.network.to(device)
        return self

    def parameters(self) -> Iterator[nn.Parameter]:
        """The frozen weights."""
        return self.network.parameters()

    def named_tensors(self) -> dict[str, torch.Tensor]:
        """The weights and buffers by name."""
        return named_tensors(self.network)


def _bundle_network(folder: Path, override: Mapping[str, Any] | None) -> nn.Module:
    with isolated_rng():
        return load_bundle_network(folder, override=override)
