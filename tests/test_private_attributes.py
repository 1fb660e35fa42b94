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

"""Each private attribute of torch, ignite and MONAI that monai_kd reads is there, and means what it did."""

from __future__ import annotations

import ast
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from ignite.engine import Engine, Events
from ignite.handlers import Checkpoint
from monai.data import PersistentDataset
from monai.engines import SupervisedTrainer
from monai.handlers import CheckpointSaver
from monai.transforms import Compose, RandFlip
from torch import nn

import monai_kd
from monai_kd import _private_attributes as private

PACKAGE = Path(monai_kd.__file__).parent
# of base classes, for those who inherit from them
INHERITED = {"_conv_forward", "_do_transform", "_replace"}


def make_trainer() -> SupervisedTrainer:
    network = nn.Conv2d(1, 2, 1)
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    return SupervisedTrainer(torch.device("cpu"), 1, [], network, optimizer, nn.CrossEntropyLoss())


def test_ignites_handlers_are_in_their_order():
    engine, calls = Engine(lambda engine, batch: None), []
    for number in range(3):
        engine.add_event_handler(Events.STARTED, lambda engine, number: calls.append(number), number)
    handlers = private.handlers_of(engine, Events.STARTED)
    handlers.insert(0, handlers.pop())
    engine.run([0])
    assert calls == [2, 0, 1]
    assert all(callable(handler[0]) for handler in handlers)


def test_handler_is_found_behind_a_filter():
    def handler(engine: Engine) -> None:
        pass

    engine = Engine(lambda engine, batch: None)
    engine.add_event_handler(Events.EPOCH_STARTED(once=1), handler)
    engine.add_event_handler(Events.EPOCH_STARTED, handler)
    found = [entry[0] for entry in private.handlers_of(engine, Events.EPOCH_STARTED)]
    assert [private.unfiltered(each) for each in found] == [handler, handler]
    assert found[0] is not handler


def test_step_of_a_trainer_is_told_from_another():
    trainer = make_trainer()
    assert private.process_function(trainer) == private.trainers_iteration(trainer) is not None
    assert private.trainers_iteration(Engine(lambda engine, batch: None)) is None


def test_checkpoints_of_a_saver(tmp_path):
    save_dict = {"network": nn.Conv2d(1, 2, 1)}
    saver = CheckpointSaver(str(tmp_path), save_dict, save_final=True, save_key_metric=True, save_interval=1)
    checkpoints = private.checkpoints_of(saver)
    assert [type(checkpoint) for checkpoint in checkpoints] == [Checkpoint] * 3
    assert private.last_checkpoint(saver) is checkpoints[0]
    assert private.best_checkpoint(saver) is checkpoints[1]
    assert callable(private.best_checkpoint(saver).score_function)
    assert all(callable(checkpoint.save_handler) for checkpoint in checkpoints)
    assert private.checkpoints_of(CheckpointSaver(str(tmp_path), save_dict)) == []


def test_item_is_cached(tmp_path):
    dataset = PersistentDataset([{"a": 1}], Compose([]), cache_dir=tmp_path)
    private.cache_item(dataset, {"a": 1})
    name = f"{dataset.hash_func({'a': 1}).decode()}{dataset.transform_hash}.pt"
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_compiled_networks_are_known():
    network = nn.Conv2d(1, 2, 1)
    assert not private.is_compiled_module(network)
    assert private.compiled_inside(network) is None
    compiled = torch.compile(network, backend="eager")
    assert private.compiled_inside(compiled) is network
    assert private.is_compiled_module(compiled)
    network.compile(backend="eager")
    assert private.is_compiled_module(network)


def test_change_in_place_is_counted():
    tensor = torch.zeros(2)
    before = private.version_of(tensor)
    tensor + 1
    assert private.version_of(tensor) == before
    tensor.add_(1)
    assert private.version_of(tensor) == before + 1


def test_metadata_goes_through_a_file(tmp_path):
    state = nn.BatchNorm2d(2).state_dict()
    metadata = private.metadata_of(state)
    assert metadata is not None
    metadata["more"] = {"size": [4]}
    torch.save(state, tmp_path / "weights.pt")
    read = torch.load(tmp_path / "weights.pt", weights_only=True)
    assert private.metadata_of(read) == metadata
    assert private.metadata_of(dict(state)) is None


@pytest.mark.skipif(not (dist.is_available() and dist.is_gloo_available()), reason="needs torch with gloo")
def test_ranks_share_a_store(tmp_path):
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        store = private.rank_store()
        assert [store.add("monai_kd/test", 1) for _ in range(2)] == [1, 2]
        store.set("here", "1")
        store.wait(["here"], timedelta(seconds=1))
        with pytest.raises((dist.DistStoreError, RuntimeError)):
            store.wait(["there"], timedelta(milliseconds=10))
    finally:
        dist.destroy_process_group()


def test_operations_are_seen():
    class Seen(private.TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(func)
            return func(*args, **(kwargs or {}))

    seen: list[Any] = []
    with Seen():
        torch.sigmoid(torch.zeros(1))
    assert torch.ops.aten.sigmoid.default in seen


def test_leaves_and_numbers():
    assert private.tree_leaves([1, (2, {"a": 3})]) == [1, 2, 3]
    assert np.float64(1.5).__reduce__()[0] is private.numpy_scalar()


def test_bases_have_what_is_inherited():
    assert callable(nn.Conv2d._conv_forward)
    assert RandFlip(prob=1.0)._do_transform in (True, False)


def own_names(tree: ast.Module) -> set[str]:
    """What a module defines: functions, classes, fields, and attributes of `self` that it assigns."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            found.add(node.target.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            found.add(node.attr)
    return found


def read_names(tree: ast.Module) -> set[str]:
    """Attributes that a module reads, also by `getattr`."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            found.add(node.attr)
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("getattr", "hasattr", "setattr"):
            found |= {each.value for each in node.args[1:2] if isinstance(each, ast.Constant)}
    return found


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_other_module_reads_one(path):
    if path == Path(private.__file__):
        return
    tree = ast.parse(path.read_text(encoding="utf-8"))
    foreign = {name for name in read_names(tree) - own_names(tree) if name.startswith("_") and name[1:2] != "_"}
    assert foreign <= INHERITED
    modules = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert not [each for each in modules if "._" in each and not each.startswith("monai_kd.")]
