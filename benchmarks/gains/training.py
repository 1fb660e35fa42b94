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

"""How a network of ``benchmarks/gains`` is trained and scored."""

from __future__ import annotations

import hashlib
import logging
import math
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from gains.tasks import Subset, Task
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from monai.losses import DiceCELoss
from torch import nn

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
BATCH_SIZE = 16
VERSIONS = 8  # of each image


class Batches:
    """
    Shuffled, augmented batches: turned by up to 15 degrees, scaled and moved by up to 10 %, flipped where the task
    allows it, brighter or darker by up to 20 %. An image has ``VERSIONS`` fixed versions, so that a teacher that
    remembers its outputs (:class:`Remembering`) predicts each of them once for all students.
    """

    def __init__(self, subset: Subset, iterations: int, seed: int, flips: bool, labelled: bool = True) -> None:
        self.subset = subset
        self.iterations = iterations
        self.labelled = labelled
        self.random = torch.Generator().manual_seed(seed)
        self.versions = [versions(image, flips) for image in subset.images]

    def __len__(self) -> int:
        return self.iterations

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        order = torch.empty(0, dtype=torch.long)
        for _ in range(self.iterations):
            while len(order) < BATCH_SIZE:
                fresh = torch.randperm(len(self.subset.images), generator=self.random)
                order = torch.cat([order, fresh])
            chosen, order = order[:BATCH_SIZE], order[BATCH_SIZE:]
            drawn = torch.randint(VERSIONS, (BATCH_SIZE,), generator=self.random)
            moves = torch.stack([self.versions[i][v] for i, v in zip(chosen.tolist(), drawn.tolist())])
            yield self.augmented(self.subset.images[chosen], self.subset.labels[chosen], moves)

    def augmented(self, image: torch.Tensor, label: torch.Tensor, moves: torch.Tensor) -> dict[str, torch.Tensor]:
        """The batch as the networks see it; ``moves`` (B, 7): six numbers of the affine map, and the brightness."""
        grid = F.affine_grid(moves[:, :6].reshape(-1, 2, 3), list(image.shape), align_corners=False)
        moved = F.grid_sample(image, grid, align_corners=False, mode="bilinear")
        batch = {"image": (moved * moves[:, 6].view(-1, 1, 1, 1)).clamp(0, 1)}
        if self.labelled:
            truth = F.grid_sample(label.float(), grid, align_corners=False, mode="nearest")
            batch["label"] = truth.long()
        return batch


class Mixed(Batches):
    """
    Batches without labels whose images are blends of two training images: the share of the first is drawn from
    0.2 to 0.8. Each version of an image has one fixed partner, so that a teacher predicts it once.
    """

    def augmented(self, image: torch.Tensor, label: torch.Tensor, moves: torch.Tensor) -> dict[str, torch.Tensor]:
        """Blend each moved image with its partner."""
        own = super().augmented(image, label, moves)["image"]
        blended = []
        for each, move in zip(own, moves):
            random = torch.Generator().manual_seed(zlib.crc32(move.numpy().tobytes()))
            other = torch.randint(len(self.subset.images), (1,), generator=random)
            share = 0.2 + 0.6 * torch.rand(1, generator=random)
            blended.append(share * each + (1 - share) * self.subset.images[other][0])
        return {"image": torch.stack(blended)}


def versions(image: torch.Tensor, flips: bool) -> torch.Tensor:
    """The affine maps and brightnesses (VERSIONS, 7) of one image; they depend on nothing else."""
    random = torch.Generator().manual_seed(zlib.crc32(image.numpy().tobytes()))

    def uniform(low: float, high: float) -> torch.Tensor:
        return low + (high - low) * torch.rand(VERSIONS, generator=random)

    angle = uniform(-math.pi / 12, math.pi / 12)
    scale = uniform(0.9, 1.1)
    mirror = torch.sign(uniform(-1, 1)) if flips else torch.ones(VERSIONS)
    cos, sin = scale * torch.cos(angle), scale * torch.sin(angle)
    rows = [cos * mirror, -sin, uniform(-0.1, 0.1), sin * mirror, cos, uniform(-0.1, 0.1), uniform(0.8, 1.2)]
    return torch.stack(rows, 1)


class Remembering(nn.Module):
    """A frozen network that computes the output of an image once and keeps it in half precision."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.kept: dict[bytes, torch.Tensor] = {}

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logits (B, out_channels, H, W)."""
        keys = [hashlib.blake2b(image.cpu().numpy().tobytes(), digest_size=16).digest() for image in images]
        unknown = [i for i, key in enumerate(keys) if key not in self.kept]
        if unknown:
            fresh = self.network(images[unknown]).half()
            self.kept.update({keys[i]: output for i, output in zip(unknown, fresh)})
        return torch.stack([self.kept[key] for key in keys]).float()


@torch.no_grad()
def predict(network: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """The most probable class (N, H, W) of each pixel."""
    network.eval()
    chunks = [network(chunk.to(DEVICE)).argmax(1).cpu() for chunk in images.split(64)]
    network.train()
    return torch.cat(chunks)


def scores(network: nn.Module, subset: Subset, num_classes: int) -> dict[str, np.ndarray]:
    """
    Dice and relative volume difference (cases, classes - 1) of each case, whose images are pooled. They are NaN for a
    class that the label does not hold.
    """
    predicted, label = predict(network, subset.images), subset.labels[:, 0].long()
    names = list(dict.fromkeys(subset.cases))
    place = {name: i for i, name in enumerate(names)}
    index = torch.tensor([place[case] for case in subset.cases])
    dice = np.full((len(names), num_classes - 1), np.nan)
    volume = dice.copy()
    for k in range(1, num_classes):
        own, true = (predicted == k), (label == k)
        counts = [torch.zeros(len(names), dtype=torch.long) for _ in range(3)]
        for count, flags in zip(counts, (own, true, own & true)):
            count.index_add_(0, index, flags.sum(dim=(1, 2)))
        p, t, both = (count.double().numpy() for count in counts)
        held = t > 0
        dice[held, k - 1] = 2 * both[held] / (p + t)[held]
        volume[held, k - 1] = (p - t)[held] / t[held]
    return {"dice": dice, "rvd": volume}


def train(
    network: nn.Module,
    task: Task,
    subset: Subset,
    seed: int,
    epochs: int,
    epoch_length: int,
    learning_rate: float,
    handlers: Sequence[Any] = (),
    best: Path | None = None,
) -> dict[str, Any]:
    """
    Train with Dice + cross entropy, AdamW and a cosine to zero; the epoch of the best validation Dice is kept.

    Returns:
        the validation Dice after each epoch, the last terms of the loss, and the seconds.
    """
    network.to(DEVICE)
    batches = Batches(subset, epoch_length, seed, task.flips)
    optimizer = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=1e-4)
    steps = epochs * epoch_length
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    trainer = SupervisedTrainer(
        device=DEVICE,
        max_epochs=epochs,
        train_data_loader=batches,
        network=network,
        optimizer=optimizer,
        loss_function=DiceCELoss(softmax=True, to_onehot_y=True, batch=True),
        train_handlers=list(handlers),
        decollate=False,
    )
    trainer.logger.setLevel(logging.WARNING)
    curve: list[float] = []
    terms: dict[str, list[float]] = {}
    kept: dict[str, torch.Tensor] = {}

    def step(engine: Any) -> None:
        scheduler.step()
        for key, value in engine.state.output.items():
            if "weight" in key or "ratio" in key or key.startswith("loss"):
                terms.setdefault(key, []).append(float(torch.as_tensor(value).detach()))

    def validate(engine: Any) -> None:
        curve.append(float(np.nanmean(scores(network, task.validation, task.num_classes)["dice"])))
        if len(curve) % 10 == 0:
            print(f"  epoch {len(curve)} of {epochs}: validation Dice {max(curve):.3f}", flush=True)
        if curve[-1] >= max(curve):
            kept.update({k: v.detach().clone() for k, v in network.state_dict().items()})

    trainer.add_event_handler(Events.ITERATION_COMPLETED, step)
    trainer.add_event_handler(Events.EPOCH_COMPLETED, validate)
    trainer.run()
    network.load_state_dict(kept)
    if best is not None:
        best.parent.mkdir(parents=True, exist_ok=True)
        torch.save(network.state_dict(), best)
    last = {key: float(np.mean(values[-epoch_length:])) for key, values in terms.items()}
    return {"curve": curve, "terms": last}
