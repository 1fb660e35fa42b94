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

"""Images without labels beside those of the trainer, in one forward pass."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from ignite.distributed import get_rank

from monai_kd.losses._channels import classes_of
from monai_kd.networks.teacher import plain

MIXED = "mixed"
RANKS = 10_000  # more than any training has


class UnlabelledBatches:
    """
    Puts a batch without labels behind the trainer's batch before the forward pass, and takes it off before the loss.

    Student and teacher see both batches in one forward pass, so that batch normalization sees both and a distributed
    or compiled student is called once. The trainer's loss sees its own images alone. The loader is started anew in
    each epoch, and again where it is shorter than the epoch.

    Args:
        loader: gives batches, a mapping with the keys of ``keys`` or, for one key, a tensor.
        keys: what the networks see of the batch, ``image`` first.
    """

    def __init__(self, loader: Iterable[Any], keys: Iterable[str]) -> None:
        if isinstance(loader, str):
            raise ValueError(f"`unlabelled` must be a loader or {MIXED!r}, but got {loader!r}.")
        if not hasattr(loader, "__iter__") or isinstance(loader, Iterator):
            raise TypeError(
                "`unlabelled` must be a loader that can be started in each epoch, but got "
                f"{type(loader).__name__}; pass a `DataLoader`."
            )
        self.loader = loader
        self.keys = sorted(keys)
        self._iterator: Iterator[Any] | None = None
        self._batch: Any = None
        self._labelled = 0

    def restart(self, engine: Any) -> None:
        """As an epoch starts. The loader itself is asked at the first batch, when all seeds are set."""
        self._iterator = None

    def join(self, engine: Any) -> None:
        """Put a batch without labels behind the trainer's."""
        batch = engine.state.batch
        if not isinstance(batch, Mapping) or any(key not in batch for key in self.keys):
            keys = sorted(map(str, batch)) if isinstance(batch, Mapping) else type(batch).__name__
            raise ValueError(f"The batch must be a mapping with {self.keys} for `unlabelled` images, but got {keys}.")
        extra = self._extra(engine)
        self._batch = batch
        self._labelled = len(batch["image"] if "image" in batch else batch[self.keys[0]])
        joined = {key: self._joined(key, batch[key], extra[key]) for key in self.keys}
        engine.state.batch = {**batch, **joined}

    def describe(self) -> str:
        """What the images are, in a few words."""
        number = len(getattr(self.loader, "dataset", self.loader))  # type: ignore[arg-type]
        return f"{number} images without labels"

    def _extra(self, engine: Any) -> Mapping[str, torch.Tensor]:
        """The second batch."""
        return self._next()

    def _next(self) -> Mapping[str, torch.Tensor]:
        if self._iterator is None:
            self._iterator = iter(self.loader)
        batch = next(self._iterator, None)
        if batch is None:
            self._iterator = iter(self.loader)
            batch = next(self._iterator, None)
        if batch is None:
            raise ValueError("`unlabelled` must give at least one batch, but got an empty loader.")
        if isinstance(batch, torch.Tensor):
            batch = {self.keys[0]: batch}
        missing = [key for key in self.keys if key not in batch]
        if missing:
            raise ValueError(f"The batches of `unlabelled` must hold {self.keys}, but got {sorted(map(str, batch))}.")
        return batch

    @staticmethod
    def _joined(key: str, own: torch.Tensor, extra: torch.Tensor) -> torch.Tensor:
        own, extra = plain(own), plain(extra)
        if own.shape[1:] != extra.shape[1:]:
            raise ValueError(
                f"`{key}` of `unlabelled` must have the channels and size of the labelled images, but got "
                f"{tuple(extra.shape[1:])} and {tuple(own.shape[1:])}; give both the same transforms."
            )
        return torch.cat([own, extra.to(own.device, own.dtype)])

    def split(self, engine: Any) -> Any:
        """
        Give the trainer its own images and predictions back.

        Returns:
            the ``image`` and ``pred`` of both batches.
        """
        engine.state.batch, self._batch = self._batch, None
        output = engine.state.output
        whole = {"image": output["image"], "pred": output["pred"]}
        output["image"] = whole["image"][: self._labelled]
        output["pred"] = self._first(whole["pred"])
        return whole

    def _first(self, pred: Any) -> Any:
        if isinstance(pred, (list, tuple)):
            return type(pred)(each[: self._labelled] for each in pred)
        return pred[: self._labelled]

    def label(self, label: torch.Tensor | None, teacher: torch.Tensor) -> torch.Tensor | None:
        """The label of both batches, where the teacher's most probable classes serve as that of the second."""
        if label is None:
            return None
        logits = teacher[self._labelled :]
        classes = classes_of(logits)
        if label.shape[1] > 1:
            channels = [(classes == k).to(label.dtype) for k in range(label.shape[1])]
            return torch.cat([label, torch.cat(channels, dim=1)])
        return torch.cat([label, classes.to(label.dtype)])


class MixedImages(UnlabelledBatches):
    r"""
    Makes the second batch out of the first: each image is blended with another of its batch (mixup, Zhang et al.,
    "mixup: Beyond Empirical Risk Minimization", ICLR 2018, Eq. 1),

    .. math:: x = \lambda x_i + (1 - \lambda) x_j, \qquad \lambda \sim U(0.2, 0.8).

    The blends are drawn from the number of the iteration and of the rank: they are the same when a training is
    resumed, and no other random state moves.

    Args:
        keys: what the networks see of the batch.
    """

    def __init__(self, keys: Iterable[str]) -> None:
        super().__init__([], keys)

    def describe(self) -> str:
        """What the images are, in a few words."""
        return "blends of its images"

    def _extra(self, engine: Any) -> Mapping[str, torch.Tensor]:
        batch = engine.state.batch
        number = len(batch[self.keys[0]])
        if number < 2:
            raise ValueError(
                f"`unlabelled={MIXED!r}` must have batches of 2 images or more to blend, but got {number}; take a "
                "larger batch or a loader of images without labels."
            )
        random = torch.Generator().manual_seed(engine.state.iteration * RANKS + get_rank())
        shift = int(torch.randint(1, number, (1,), generator=random))
        share = 0.2 + 0.6 * torch.rand(number, generator=random)
        return {key: _blend(plain(batch[key]), shift, share) for key in self.keys}


def _blend(images: torch.Tensor, shift: int, share: torch.Tensor) -> torch.Tensor:
    """Blend each image with the one that lies ``shift`` places before it."""
    share = share.to(images.device, images.dtype).view(-1, *[1] * (images.ndim - 1))
    return share * images + (1 - share) * images.roll(shift, dims=0)
