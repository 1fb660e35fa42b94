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

from __future__ import annotations

import pytest
import torch
from ignite.engine import Events
from monai.data import DataLoader
from monai.engines import SupervisedEvaluator

from monai_kd.data import ReadableItems
from monai_kd.handlers import FailedItemsHandler


def image(item):
    if item["image"] < 0:
        raise ValueError(f"negative in {item['case']}.png")
    return {**item, "image": torch.full((1, 4, 4), float(item["image"]))}


def evaluator(values, network=None, strict=False):
    items = [{"case": f"case{number}", "image": value} for number, value in enumerate(values)]
    dataset = ReadableItems(items, image, strict)
    engine = SupervisedEvaluator(
        device=torch.device("cpu"),
        val_data_loader=DataLoader(dataset, batch_size=1),
        network=network or torch.nn.Identity(),
        val_handlers=[FailedItemsHandler(dataset)],
    )
    done = []
    engine.add_event_handler(
        Events.ITERATION_COMPLETED, lambda engine: done.append(engine.state.output[0]["pred"].max())
    )
    return engine, done


def test_all_others_are_done_before_the_error():
    engine, done = evaluator([1, -1, 2, -1, 3])
    with pytest.raises(RuntimeError, match="^2 files or frames could not be read, all others are done;") as caught:
        engine.run()
    assert str(caught.value).splitlines()[1:] == [
        "  case1: ValueError: negative in case1.png",
        "  case3: ValueError: negative in case3.png",
    ]
    assert [int(value) for value in done] == [1, 2, 3]


def test_nothing_to_refuse():
    engine, done = evaluator([1, 2])
    engine.run()
    assert len(done) == 2


def test_none_can_be_read():
    engine, done = evaluator([-1])
    with pytest.raises(RuntimeError, match="^1 files or frames could not be read"):
        engine.run()
    assert done == []


def test_strict_names_the_first():
    engine, done = evaluator([1, -1, 2], strict=True)
    with pytest.raises(RuntimeError, match="`case1` cannot be read, ValueError: negative"):
        engine.run()
    assert len(done) == 1


class Fragile(torch.nn.Module):
    def forward(self, image):
        if image.max() == 2:
            raise RuntimeError("out of memory")
        return image


def test_error_of_the_network_names_its_item():
    engine, done = evaluator([-1, 1, 2, 3], Fragile())
    with pytest.raises(
        RuntimeError, match="stopped at `.*case2.*`, RuntimeError: out of memory; before, 1 could not be"
    ):
        engine.run()
    assert len(done) == 1
