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

"""Images made of false pixels: what is in the queues, what the trainer sees of it, and what happens without errors."""

from __future__ import annotations

import copy
import random
import warnings
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Events
from monai.data import Dataset, MetaTensor
from monai.engines.utils import IterationEvents
from monai.handlers import CheckpointLoader, CheckpointSaver
from monai.transforms import Compose, RandFlipd, RandRotate90d
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, IterableDataset

from monai_kd.handlers import EpochSeedHandler, FalsePixelHandler
from monai_kd.networks import Teacher
from tests.handlers.engine_case import Net, same, seeded
from tests.handlers.training import On, adam, make_trainer


class Threshold(nn.Module):
    """A teacher that knows a pixel's class from its first channel, with errors above or below as it is asked to."""

    def __init__(self, classes: int = 2, shift: float = 0.0, outputs: int | None = None) -> None:
        super().__init__()
        self.edges = torch.linspace(0, 1, classes + 1)[1:-1] + shift
        self.outputs = classes if outputs is None else outputs

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        if self.outputs == 1:
            return 9 * (image[:, :1] - self.edges[0])
        number = torch.bucketize(image[:, 0].contiguous(), self.edges)
        return 4 * F.one_hot(number, self.outputs).movedim(-1, 1).float() + 0 * image[:, :1]


def make_items(
    length: int = 8, channels: int = 3, size: int = 8, dims: int = 2, classes: int = 2
) -> list[dict[str, torch.Tensor]]:
    """Images whose first channel tells the class, and the class from it."""
    generator = torch.Generator().manual_seed(2)
    images = [torch.rand(channels, *[size] * dims, generator=generator) for _ in range(length)]
    edges = torch.linspace(0, 1, classes + 1)[1:-1]
    return [{"image": image, "label": torch.bucketize(image[:1].contiguous(), edges).float()} for image in images]


class Fuzzy(Threshold):
    """Errors of all kinds: the class is read from the mean of the first two channels."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return super().forward(image[:, :2].mean(1, keepdim=True))


def student(channels: int = 3, dims: int = 2, classes: int = 2) -> Any:
    convolution = nn.Conv2d if dims == 2 else nn.Conv3d
    return seeded(lambda: nn.Sequential(convolution(channels, 4, 3, padding=1), nn.ReLU(), convolution(4, classes, 1)))


def rows(pixels: torch.Tensor) -> set[tuple[float, ...]]:
    return set(map(tuple, pixels.tolist()))


def pixels_of(image: torch.Tensor) -> torch.Tensor:
    return image.movedim(1, -1).flatten(0, -2)


def false_rows(items: list[dict[str, torch.Tensor]], teacher: nn.Module, number: int) -> set[tuple[float, ...]]:
    """By a loop over the images, the pixels of a class that a teacher gets wrong."""
    found: set[tuple[float, ...]] = set()
    for item in items:
        logits = teacher(item["image"][None])
        predicted = (logits > 0).long() if logits.shape[1] == 1 else logits.argmax(1, keepdim=True)
        wrong = (predicted[0] != item["label"]) & (item["label"] == number)
        found |= rows(item["image"][:, wrong[0]].T)
    return found


def train(network: nn.Module, handler: FalsePixelHandler, items: Any = None, **kwargs: Any) -> tuple[Any, list[Any]]:
    """Train; returns the trainer, and image and label of the batches as the network has got them."""
    seen: list[Any] = []
    note = lambda engine: seen.append({key: engine.state.output[key].clone() for key in ("image", "label")})  # noqa: E731
    watch = On(IterationEvents.FORWARD_COMPLETED, note)
    handlers = [*kwargs.pop("before", ()), handler, watch]
    trainer = make_trainer(network, handlers, data=make_items() if items is None else items, **kwargs)
    trainer.run()
    return trainer, seen


class TestWhatTheTrainerSees:
    @pytest.mark.parametrize(("channels", "dims", "classes"), [(3, 2, 2), (1, 2, 2), (4, 2, 3), (2, 3, 2)])
    def test_every_pixel_is_a_false_one_of_its_class(self, channels, dims, classes):
        items = make_items(channels=channels, size=8 if dims == 2 else 4, dims=dims, classes=classes)
        teacher = Fuzzy(classes) if channels > 1 else Threshold()
        for item in items if channels == 1 else []:  # errors of both kinds, on either side of the edge
            item["label"] = (item["image"] - 0.5 > 0.1 * torch.randn_like(item["image"])).float()
        handler = FalsePixelHandler(Teacher(teacher), length=16, draw=8)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # none is lacking
            _, seen = train(student(channels, dims, classes), handler, items, epochs=1)
        for number in range(classes):
            false = false_rows(items, teacher, number)
            assert len(false) > 16
            for batch in seen:
                here = pixels_of(batch["label"])[:, 0] == number
                made = rows(pixels_of(batch["image"])[here])
                assert made <= false
                assert len(made) > 5

    def test_label_is_that_of_the_batch_and_the_loaders_tensors_are_left_alone(self):
        items = make_items()
        before = copy.deepcopy(items)
        _, seen = train(student(), FalsePixelHandler(Teacher(Fuzzy()), 16, 8), items, epochs=1)
        for batch, original in zip(seen, DataLoader(before, batch_size=2), strict=True):
            assert torch.equal(batch["label"], original["label"])
            assert torch.isclose(batch["image"], original["image"]).all(1).float().mean() < 0.1
        assert all(torch.equal(one["image"], other["image"]) for one, other in zip(items, before))

    def test_training_is_that_on_these_images_bit_for_bit(self):
        """What is replaced reaches network, loss and gradient; a label exchanged after the forward pass would not."""
        one, other = student(), student()
        _, seen = train(one, FalsePixelHandler(Teacher(Fuzzy()), 16, 8))
        optimizer = adam(other.parameters())
        for batch in seen:
            optimizer.zero_grad()
            F.cross_entropy(other(batch["image"]), batch["label"][:, 0].long()).backward()
            optimizer.step()
        assert same(one, other)
        assert not same(one, student())
        assert len(seen) == 8

    def test_nothing_is_emitted_before_the_queues_are_full(self):
        sizes, teacher, calls = [], Fuzzy(), []
        handler = FalsePixelHandler(Teacher(teacher), length=20, draw=2)
        teacher.register_forward_hook(lambda *_: calls.append(1))
        network = student()
        network.register_forward_hook(lambda *_: sizes.append((len(calls), *handler._sizes().values())))
        train(network, handler, epochs=2)
        assert sizes[0] == (11, 20, 20)  # ten batches to collect 20, and the first that is trained on
        assert sizes == [(11 + i, 20, 20) for i in range(8)]

    def test_data_without_an_end(self):
        class Endless(IterableDataset):
            def __iter__(self) -> Any:
                while True:
                    yield from make_items()

        handler = FalsePixelHandler(Teacher(Threshold()), 64, 8)  # which makes no errors
        trainer = make_trainer(student(), [handler], epochs=1, epoch_length=3)
        trainer.data_loader = DataLoader(Endless(), batch_size=2)
        with pytest.warns(UserWarning, match="too few false pixels"):
            trainer.run()
        assert trainer.state.iteration == 3

    def test_metatensors_are_kept_and_decollated(self):
        items = [{key: MetaTensor(value, meta={"case": "a"}) for key, value in item.items()} for item in make_items()]
        kinds: list[Any] = []
        note = On(Events.ITERATION_STARTED, lambda engine: kinds.append(type(engine.state.batch["image"])))
        network, other = student(), student()
        handler = FalsePixelHandler(Teacher(Fuzzy()), 16, 8)
        trainer = make_trainer(network, [handler, note], data=items)
        trainer.run()
        train(other, FalsePixelHandler(Teacher(Fuzzy()), 16, 8))
        assert set(kinds) == {MetaTensor}
        assert trainer.state.batch[0]["image"].meta["case"] == "a"
        assert same(network, other)

    def test_one_channel_teacher(self):
        teacher, items = Threshold(outputs=1, shift=0.1), make_items()
        with pytest.warns(UserWarning, match="too few false pixels of class 0 in this data: 0 in a queue of 16"):
            _, seen = train(student(), FalsePixelHandler(Teacher(teacher), 16, 8), items, epochs=1)
        false = false_rows(items, teacher, 1)
        for batch in seen:
            assert rows(pixels_of(batch["image"])[pixels_of(batch["label"])[:, 0] == 1]) <= false

    def test_teacher_with_an_image_of_its_own(self):
        items = make_items()
        other = [{"teacher_image": item["image"].flip(0)} | item for item in items]
        flipped = nn.Sequential(Flip(), Fuzzy())
        students = [student(), student()]
        train(students[0], FalsePixelHandler(Teacher(Fuzzy()), 16, 8), items)
        train(students[1], FalsePixelHandler(Teacher(flipped, image_key="teacher_image"), 16, 8), other)
        assert same(*students)


class Flip(nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image.flip(1)


class TestQueues:
    def test_first_in_first_out_of_fixed_length(self):
        handler, history, items = FalsePixelHandler(Teacher(Fuzzy()), length=40, draw=1000), [], make_items()
        note = lambda engine: history.append({c: q.clone() for c, q in handler.queues.items()})  # noqa: E731
        make_trainer(student(), [handler, On(Events.ITERATION_COMPLETED, note)], data=items, epochs=3).run()
        batches = [items[i : i + 2] for i in range(0, 8, 2)]
        for step, (before, after) in enumerate(pairwise(history), start=1):
            for number in (0, 1):
                new = false_rows(batches[step % 4], Fuzzy(), number)
                assert len(after[number]) == 40
                entered = min(len(new), 40)
                assert rows(after[number][-entered:]) <= new
                assert torch.equal(after[number][: 40 - entered], before[number][entered:])

    def test_no_more_than_drawn_enter(self):
        handler, history = FalsePixelHandler(Teacher(Fuzzy()), length=40, draw=3), []
        note = lambda engine: history.append(handler.queues[1].clone())  # noqa: E731
        make_trainer(student(), [handler, On(Events.ITERATION_COMPLETED, note)], data=make_items()).run()
        assert all(torch.equal(after[:-3], before[3:]) for before, after in pairwise(history))

    def test_classes_of_a_one_hot_label(self):
        items = make_items()
        one_hot = [item | {"label": torch.cat([1 - item["label"], item["label"]])} for item in items]
        handlers = [FalsePixelHandler(Teacher(Fuzzy()), 16, 8) for _ in range(2)]
        for handler, each in zip(handlers, (items, one_hot)):
            train(student(), handler, each, loss_function=lambda logits, label: logits.square().mean())
        assert all(torch.equal(handlers[0].queues[number], handlers[1].queues[number]) for number in (0, 1))

    def test_draws_follow_the_seed_and_leave_the_global_state_alone(self):
        found = []
        for seed, state in ((0, 1), (0, 2), (1, 1)):
            torch.manual_seed(state)
            make_trainer(student(), data=make_items(), epochs=1).run()
            without = torch.get_rng_state()
            torch.manual_seed(state)
            handler = FalsePixelHandler(Teacher(Fuzzy()), 16, 8, seed=seed)
            _, seen = train(student(), handler, epochs=1)
            found.append(torch.stack([batch["image"] for batch in seen]))
            assert torch.equal(torch.get_rng_state(), without)
        assert torch.equal(found[0], found[1])
        assert not torch.equal(found[0], found[2])


class TestBatchesAreThoseWithoutTheHandler:
    @pytest.mark.parametrize("seeded_each_epoch", [True, False])
    def test_transforms_draw_the_same(self, seeded_each_epoch):
        """Labels, which the handler leaves alone, are moved by random transforms in the trainer's own process."""

        def labels(with_handler: bool) -> list[torch.Tensor]:
            torch.manual_seed(0)
            np.random.seed(0)
            random.seed(0)
            keys = ["image", "label"]
            chain = Compose([RandFlipd(keys, 0.5, 0), Compose([RandRotate90d(keys, 0.5), jitter])]).set_random_state(5)
            data = Dataset(make_items(), chain)
            seen: list[torch.Tensor] = []
            note = On(Events.ITERATION_STARTED, lambda engine: seen.append(engine.state.batch["label"].clone()))
            handlers: list[Any] = [EpochSeedHandler(3, data)] if seeded_each_epoch else []
            handlers += [FalsePixelHandler(Teacher(Fuzzy()), 16, 2)] if with_handler else []
            trainer = make_trainer(student(), [*handlers, note], epochs=2)
            generator = torch.Generator().manual_seed(1)
            trainer.data_loader = DataLoader(data, batch_size=2, shuffle=True, generator=generator)
            trainer.run()
            return [label.as_tensor() for label in seen]

        def jitter(item: Any) -> Any:
            flip = random.random() < 0.5, np.random.rand() < 0.5
            return {key: value.flip([1 + axis for axis in (0, 1) if flip[axis]]) for key, value in item.items()}

        without, with_handler = labels(False), labels(True)
        assert len(without) == 8
        assert all(torch.equal(one, other) for one, other in zip(without, with_handler, strict=True))


class TestTeachersWithoutErrors:
    @pytest.mark.parametrize(("shift", "lacking"), [(0.2, [0]), (-0.2, [1]), (0.0, [0, 1])])
    def test_says_so_and_takes_the_right_pixels_of_which_it_is_least_sure(self, shift, lacking):
        teacher, items = Threshold(outputs=1, shift=shift), make_items()
        handler = FalsePixelHandler(Teacher(teacher), length=64, draw=8)
        with pytest.warns(UserWarning, match="false pixels") as said:
            _, seen = train(student(), handler, items, epochs=1)
        texts = [str(each.message) for each in said]
        assert [int(text.partition("of class ")[2][0]) for text in texts] == lacking
        assert all("0 in a queue of 64" in text for text in texts)
        assert len(seen) == 4
        for number in lacking:
            expected: set[tuple[float, ...]] = set()
            for batch in (items[i : i + 2] for i in range(0, 8, 2)):
                own = torch.cat([item["image"][:, (item["label"] == number)[0]].T for item in batch])
                distance = (own[:, 0] - teacher.edges[0]).abs()  # of this teacher what is near the edge is unsure
                expected |= rows(own[distance.argsort()[:8]])
            assert rows(handler.queues[number]) == expected

    def test_a_few_errors_stay_and_leave_last(self):
        items = make_items()
        items[0]["image"][0, 0, 0], items[0]["label"][0, 0, 0] = 0.9, 0  # one false positive
        handler = FalsePixelHandler(Teacher(Threshold()), length=64, draw=4)
        with pytest.warns(UserWarning, match="false pixels of class") as said:
            handler_state(handler, items)
        assert "class 0 in this data: 10 in a queue of 64" in str(said[0].message)  # one in each of ten passes
        assert rows(handler.queues[0][-10:]) == rows(items[0]["image"][None, :, 0, 0])
        assert (handler.queues[0][:-10, 0] < 0.5).all()

    def test_class_that_the_data_never_shows(self):
        items = make_items()
        for item in items:
            item["label"].zero_()
        handler = FalsePixelHandler(Teacher(Fuzzy(3)), length=8, draw=4)
        _, seen = train(student(classes=3), handler, items, epochs=1)
        assert [len(queue) for queue in handler.queues.values()] == [8, 0, 0]
        items[0]["label"][0, 0, 0] = 2  # and which it shows afterwards
        _, seen = train(student(classes=3), handler, items, epochs=1)
        assert len(seen) == 4

    def test_gathers_over_several_passes(self):
        handler = FalsePixelHandler(Teacher(Fuzzy()), length=30, draw=1)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            handler_state(handler, make_items())
        assert [len(queue) for queue in handler.queues.values()] == [30, 30]

    def test_gives_up_after_ten_passes(self):
        handler = FalsePixelHandler(Teacher(Fuzzy()), length=50, draw=1)
        with pytest.warns(UserWarning, match="class [01] in this data: 40 in a queue of 50") as said:
            handler_state(handler, make_items())
        assert len(said) == 2
        assert [len(queue) for queue in handler.queues.values()] == [50, 50]


def handler_state(handler: FalsePixelHandler, items: Any) -> None:
    """The handler as the first epoch has started."""

    class Stop(Exception):
        pass

    def stop(engine: Any) -> None:
        raise Stop

    trainer = make_trainer(student(), [handler, On(Events.EPOCH_STARTED, stop)], data=items)
    with pytest.raises(Stop):
        trainer.run()


class TestResume:
    @staticmethod
    def run(epochs: int, folder: Path, load: Path | None = None) -> SimpleNamespace:
        torch.manual_seed(17 + epochs)
        network = student()
        handler, optimizer = FalsePixelHandler(Teacher(Fuzzy()), 32, 4), adam(network.parameters())
        trainer = make_trainer(network, [EpochSeedHandler(3), handler], epochs=epochs, optimizer=optimizer)
        trainer.data_loader = DataLoader(make_items(), batch_size=2, shuffle=True)
        saved = {"network": network, "optimizer": optimizer, "trainer": trainer, "false_pixels": handler}
        if load is not None:
            CheckpointLoader(str(load), saved).attach(trainer)
        CheckpointSaver(str(folder), saved, save_final=True, final_filename=f"{epochs}.pt").attach(trainer)
        trainer.run()
        return SimpleNamespace(network=network, handler=handler)

    def test_2_and_2_epochs_are_4(self, tmp_path):
        whole = self.run(4, tmp_path / "whole")
        first = self.run(2, tmp_path / "parts")
        second = self.run(4, tmp_path / "parts", load=tmp_path / "parts" / "2.pt")
        assert same(second.network, whole.network)
        assert not same(first.network, whole.network)
        for number in (0, 1):
            assert torch.equal(second.handler.queues[number], whole.handler.queues[number])
        content = torch.load(tmp_path / "parts" / "2.pt", weights_only=True)
        assert {key: tuple(value.shape) for key, value in content["false_pixels"]["queues"].items()} == {
            "0": (32, 3),
            "1": (32, 3),
        }

    def test_longer_state_is_cut_to_its_newest(self):
        handler, other = FalsePixelHandler(Teacher(Fuzzy()), 32, 4), FalsePixelHandler(Teacher(Fuzzy()), 8, 4)
        handler_state(handler, make_items())
        other.load_state_dict(handler.state_dict())
        assert torch.equal(other.queues[1], handler.queues[1][-8:])

    def test_shorter_state_is_filled_as_the_epoch_starts(self):
        handler, other = FalsePixelHandler(Teacher(Fuzzy()), 8, 4), FalsePixelHandler(Teacher(Fuzzy()), 32, 4)
        handler_state(handler, make_items())
        other.load_state_dict(handler.state_dict())
        assert not other.state_dict()["filled"]
        handler_state(other, make_items())
        assert [len(queue) for queue in other.queues.values()] == [32, 32]

    def test_class_that_was_never_shown_is_full(self):
        items = make_items()
        for item in items:
            item["label"].zero_()
        handler, other = (FalsePixelHandler(Teacher(Fuzzy()), 8, 4) for _ in range(2))
        handler_state(handler, items)
        other.load_state_dict(handler.state_dict())
        assert other.state_dict()["filled"]


class TestGuards:
    def test_queues_of_other_channels(self):
        handler = FalsePixelHandler(Teacher(Fuzzy()), 8, 4)
        handler.load_state_dict({"queues": {"0": torch.rand(8, 1), "1": torch.rand(8, 1)}, "filled": True})
        with pytest.raises(
            ValueError, match="`image` must have the channels of the pixels in .*, but got 3 and 1; do not"
        ):
            train(student(), handler)

    @pytest.mark.parametrize("wrong", [{"length": 0}, {"draw": 0}, {"seed": -1}])
    def test_numbers(self, wrong):
        with pytest.raises(ValueError, match="`length` and `draw` must be at least 1 and `seed` not negative, but got"):
            FalsePixelHandler(Teacher(Fuzzy()), **wrong)

    def test_teacher(self):
        with pytest.raises(TypeError, match="`teacher` must be a Teacher or TeacherTeam, but got Net"):
            FalsePixelHandler(Net())

    def test_teacher_that_is_trained(self):
        network = student()
        with pytest.raises(ValueError, match="must not share weights or buffers with the student"):
            train(network, FalsePixelHandler(Teacher(network)))

    def test_batch_that_is_no_dictionary(self):
        items = [(item["image"], item["label"]) for item in make_items()]
        with pytest.raises(ValueError, match=r"must have the entries \['image', 'label'\], but got list"):
            train(student(), FalsePixelHandler(Teacher(Fuzzy())), items)

    def test_batch_without_an_entry(self):
        with pytest.raises(ValueError, match=r"entries \['image', 'mask'\], but got \['image', 'label'\]"):
            train(student(), FalsePixelHandler(Teacher(Fuzzy()), label_key="mask"))

    def test_label_of_more_classes(self):
        with pytest.raises(ValueError, match="`label` must hold whole class indices from 0 to 1, but got 2"):
            train(student(), FalsePixelHandler(Teacher(Fuzzy())), make_items(classes=3))

    def test_attach_twice_is_once(self):
        students = [student(), student()]
        for network, times in zip(students, (1, 2)):
            handler = FalsePixelHandler(Teacher(Fuzzy()), 16, 8)
            make_trainer(network, [handler] * times, data=make_items()).run()
        assert same(*students)
