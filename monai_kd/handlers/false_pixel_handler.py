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

"""Training on images made of the pixels that a teacher gets wrong (PLC-KD)."""

from __future__ import annotations

import random
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from itertools import islice
from types import ModuleType
from typing import Any

import numpy as np
import torch
from ignite.distributed import get_rank
from ignite.engine import Engine, Events
from monai.transforms import Randomizable
from monai.utils import convert_to_dst_type

from monai_kd.corrections._inputs import check_size, check_soft_label
from monai_kd.corrections.correction_chain import class_indices
from monai_kd.handlers._start_checks import check_teacher, check_weights
from monai_kd.losses._channels import largest, most_probable
from monai_kd.networks import Teacher, TeacherTeam
from monai_kd.networks.isolated_rng import isolated_rng
from monai_kd.networks.soft_label import as_soft_label
from monai_kd.networks.teacher import plain

PASSES = 10


class FalsePixelHandler:
    """
    Lets a trainer see images made of the pixels that a teacher gets wrong, in place of those that it loads: the
    false-pixel image generation (FIG) with which PLC-KD trains its false-pixel-aware assistant. Wang et al.,
    "Progressively Correcting Soft Labels via Teacher Team for Knowledge Distillation in Medical Image Segmentation",
    MICCAI 2024, Sec. 2.2.

    A queue of each class holds pixels of that class which the teacher took for another: of two classes that of the
    lesion the false negative pixels, Q^{P+}, that of the background the false positive ones, Q^{P-}. A pixel is all
    channels of one place, in 2D or 3D. In each iteration

    - the teacher looks at the batch, and of its false pixels ``draw`` of each class, or all if they are fewer, enter
      the queue of their class, from which as many of the oldest leave;
    - the image of the batch is replaced by one of the same size whose pixels are drawn from the queue of their class,
      independently of each other. The label remains: the random lesion masks are those of the batch.

    Nothing is emitted before all queues are full. Until then, as the first epoch starts, the handler goes through the
    data and collects alone. A teacher may have too few errors of a class: when a pass over the data brings none any
    more, or after ten passes, a queue is filled with right pixels of its class of which the teacher is least sure, with
    a warning that says how many are false ones. In an image of a class that this data never showed, its own pixels
    stay.

    The batch is replaced as the iteration starts, before the trainer takes it apart, since it does not read its
    output's label again. Draws depend on the seed, the rank and the number of the iteration. To resume exactly, save
    the handler with the network, ``CheckpointSaver(save_dict={..., "false_pixels": handler})``; in distributed training
    each rank has queues of its own, of which the first rank's are saved.

    Where the paper, which has no code, leaves it open (k, M and N are in a supplement that we do not have): lengths and
    draws are defaults of ours, a queue for each class is our reading for more than two, and so is what happens to a
    teacher without errors of a kind.

    Args:
        teacher: a :py:class:`~monai_kd.networks.Teacher` or :py:class:`~monai_kd.networks.TeacherTeam` of the task.
        length: pixels in a queue, at least 1 (M and N in the paper).
        draw: pixels of a class that enter its queue in an iteration, at least 1 (k in the paper).
        seed: of the draws, >= 0.
        image_key: entry of the batch that is replaced, (B, channels, *spatial).
        label_key: entry of the batch with the label, class indices (B, 1, *spatial) or one-hot (B, C, *spatial).

    Raises:
        TypeError: when ``teacher`` is another object.
        ValueError: when a number is out of range, or (as it runs) the batch lacks an entry, or the label does not fit
            the teacher's classes.

    Example::

        >>> import torch
        >>> handler = FalsePixelHandler(Teacher(torch.nn.Conv2d(3, 2, 1)), length=1024, draw=64)
        >>> handler.state_dict()
        {'queues': {}, 'filled': False}
    """

    def __init__(
        self,
        teacher: Teacher | TeacherTeam,
        length: int = 4096,
        draw: int = 256,
        seed: int = 0,
        image_key: str = "image",
        label_key: str = "label",
    ) -> None:
        check_teacher(teacher)
        if length < 1 or draw < 1 or seed < 0:
            raise ValueError(
                f"`length` and `draw` must be at least 1 and `seed` not negative, but got {length}, {draw} and {seed}."
            )
        self.teacher = teacher
        self.length = int(length)
        self.draw = int(draw)
        self.seed = int(seed)
        self.image_key, self.label_key = image_key, label_key
        self.queues: dict[int, torch.Tensor] = {}  # by class, (up to length, channels), the oldest first
        self._filled = False

    def attach(self, engine: Engine) -> None:
        """Register with a trainer whose batches are dictionaries. Attaching twice changes nothing."""
        if engine.has_event_handler(self._start):
            return
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.EPOCH_STARTED, self._fill)  # when a checkpoint has been loaded
        engine.add_event_handler(Events.ITERATION_STARTED, self)

    def _start(self, engine: Any) -> None:
        self.teacher.to(engine.state.device)
        check_weights(self.teacher, engine.network, engine.optimizer)

    def __call__(self, engine: Any) -> None:
        batch, generator = engine.state.batch, self._generator(engine.state.iteration)
        pixels, classes, wrong, _ = self._look(engine, batch)
        self._collect(pixels, classes, wrong, generator)
        pixels = pixels.clone()
        for number, queue in self.queues.items():
            here = (classes == number).nonzero()[:, 0]
            if len(queue) > 0:
                drawn = torch.randint(len(queue), (len(here),), generator=generator)
                pixels[here] = queue[drawn.to(queue.device)]
        image = batch[self.image_key]
        shape = (image.shape[0], *image.shape[2:], image.shape[1])
        made = pixels.reshape(shape).movedim(-1, 1).contiguous()
        engine.state.batch = dict(batch)
        engine.state.batch[self.image_key] = convert_to_dst_type(made, image, device=made.device)[0]

    def _fill(self, engine: Any) -> None:
        """Go through the data until all queues are full."""
        if self._filled:
            return
        rest: dict[int, torch.Tensor] = {}  # right pixels of which the teacher is least sure
        seen = 0
        with (
            isolated_rng(),
            _isolated_data(engine.state.dataloader),
        ):  # the epochs that follow have the batches that they would have without
            for _ in range(PASSES):
                before = self._sizes()
                for batch in islice(engine.state.dataloader, engine.state.epoch_length):
                    pixels, classes, wrong, sureness = self._look(engine, batch)
                    self._collect(pixels, classes, wrong, self._generator(-seen))
                    self._keep_unsure(rest, pixels, classes, sureness.where(~wrong, torch.inf))
                    seen += 1
                    if min(self._sizes().values()) == self.length:
                        self._filled = True
                        return
                if self._sizes() == before:
                    break
        self._fill_up(rest)

    def _look(self, engine: Any, batch: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """The pixels (P, channels) of a batch, their classes, whether the teacher is wrong, and how sure of them."""
        keys = {self.image_key, self.label_key, *self.teacher.image_keys}
        if not isinstance(batch, Mapping) or not keys.issubset(batch):
            got = sorted(map(str, batch)) if isinstance(batch, Mapping) else type(batch).__name__
            raise ValueError(f"a batch must have the entries {sorted(keys)}, but got {got}.")
        device = engine.state.device
        given = {key: plain(batch[key]).to(device, non_blocking=engine.non_blocking) for key in keys}
        with torch.autocast("cuda", **engine.amp_kwargs) if engine.amp else nullcontext():  # as the trainer has it
            soft_label = as_soft_label(self.teacher({key: given[key] for key in self.teacher.image_keys}).logits)
        soft_label, label = check_soft_label(soft_label, class_indices(given[self.label_key]))
        image = given[self.image_key]
        check_size(self.image_key, image, soft_label)
        for number in range(max(2, soft_label.shape[1])):
            queue = self.queues.setdefault(number, image.new_empty(0, image.shape[1]))
            if queue.shape[1] != image.shape[1]:
                raise ValueError(
                    f"`{self.image_key}` must have the channels of the pixels in the queues, but got "
                    f"{image.shape[1]} and {queue.shape[1]}; do not load this handler from a checkpoint of others."
                )
        wrong = most_probable(soft_label) != label
        pixels = image.movedim(1, -1).reshape(-1, image.shape[1])
        return pixels, label.flatten(), wrong.flatten(), largest(soft_label).flatten()

    def _collect(
        self, pixels: torch.Tensor, classes: torch.Tensor, wrong: torch.Tensor, generator: torch.Generator
    ) -> None:
        """Random false pixels of each class enter its queue."""
        for number, queue in self.queues.items():
            found = (wrong & (classes == number)).nonzero()[:, 0]
            drawn = torch.randperm(len(found), generator=generator)[: self.draw]
            entering = pixels[found[drawn.to(found.device)]]
            self.queues[number] = torch.cat([queue.to(entering), entering])[-self.length :]

    def _keep_unsure(
        self, rest: dict[int, torch.Tensor], pixels: torch.Tensor, classes: torch.Tensor, sureness: torch.Tensor
    ) -> None:
        for number in self.queues:
            own = sureness.where(classes == number, torch.inf)
            least = own.topk(min(self.draw, len(own)), largest=False)
            entering = pixels[least.indices[least.values < torch.inf]]
            rest[number] = torch.cat([rest.get(number, entering[:0]), entering])[-self.length :]

    def _fill_up(self, rest: dict[int, torch.Tensor]) -> None:
        """Put right pixels in front of the false ones, so that they leave first."""
        for number, queue in self.queues.items():
            lacking, own = self.length - len(queue), rest[number]
            own = own if len(own) else queue
            if lacking == 0 or len(own) == 0:
                continue
            filling = own[torch.arange(lacking, device=own.device) % len(own)]
            self.queues[number] = torch.cat([filling, queue])
            warnings.warn(
                f"the teacher has too few false pixels of class {number} in this data: {len(queue)} in a queue of "
                f"{self.length}. It is filled with right pixels of that class of which the teacher is least sure, or "
                "the same ones again where none is right; a smaller `length` needs fewer.",
                stacklevel=2,
            )
        self._filled = True

    def _sizes(self) -> dict[int, int]:
        return {number: len(queue) for number, queue in self.queues.items()}

    def _generator(self, iteration: int) -> torch.Generator:
        draw = np.random.SeedSequence([self.seed, get_rank(), int(iteration > 0), abs(iteration)]).generate_state(1)
        return torch.Generator().manual_seed(int(draw[0]))

    # what a checkpoint needs

    def state_dict(self) -> dict[str, Any]:
        """The queues by class, each (up to ``length``, channels), the oldest pixel first."""
        return {"queues": {str(number): queue.cpu() for number, queue in self.queues.items()}, "filled": self._filled}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """
        Load what :py:meth:`state_dict` gave. Of longer queues the newest pixels stay; shorter ones are filled as the
        next epoch starts.
        """
        self.queues = {int(number): queue[-self.length :] for number, queue in state_dict["queues"].items()}
        full = all(len(queue) in (0, self.length) for queue in self.queues.values())  # 0: a class never shown
        self._filled = bool(state_dict["filled"]) and full


@contextmanager
def _isolated_data(data: Any) -> Iterator[None]:
    """Leave the random states of Python and NumPy, and those of a loader, its dataset and transforms, as they were."""
    states, python, numpy = _random_states(data), random.getstate(), np.random.get_state()
    saved = [(each, each.get_state()) for each in states]
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        for each, state in saved:
            each.set_state(state)


def _random_states(data: Any) -> list[Any]:
    """All random states below an object."""
    found, seen, waiting = [], set(), [data]
    while waiting:
        each = waiting.pop()
        if id(each) in seen or isinstance(each, (torch.Tensor, np.ndarray, type, ModuleType)):
            continue
        seen.add(id(each))
        if isinstance(each, (np.random.RandomState, torch.Generator)):
            found.append(each)
        if isinstance(each, Randomizable):
            waiting.append(each.R)  # of the class, until it is seeded
        waiting += each.values() if isinstance(each, dict) else each if isinstance(each, (list, tuple)) else ()
        waiting += getattr(each, "__dict__", {}).values()
    return found
