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

"""What distillation costs beside what it cannot do without: the teacher's forward pass and the student's own step.

    python benchmarks/step.py                          # RA-UNet -> ENet at 384 x 384 with EMKD's three terms
    python benchmarks/step.py --system kdas            # Polyp-PVT B2 -> B0 at 352 x 352 with KDAS's two terms
    python benchmarks/step.py --size 96 --batch 4 --rounds 5
    python benchmarks/step.py --size 96 --batch 2 --rounds 7 --steps 50 --weights auto    # weights that set themselves

Both are measured in one run, in turns, in MONAI's trainer:

- reference: the student's plain step with the teacher's forward pass in it, at the place where distillation has it,
  but without a hook and with its output thrown away;
- distillation: the student's step with `DistillationHandler`.

The ratio is taken round by round; its median is what counts. On a CPU the time is that of the processor (of all
threads), which other programs disturb less. Peak memory is measured in a process each (CPU: resident set above that of
the process with both networks loaded) or by the allocator (GPU).
"""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import fire
import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.losses import DeepSupervisionLoss, DiceCELoss, DiceFocalLoss
from monai.utils import set_determinism
from torch import nn

from monai_kd.handlers import DistillationHandler, DistillationTerm
from monai_kd.losses import (
    AttentionSupervisionLoss,
    ImportanceMapLoss,
    KDLoss,
    RegionAffinityLoss,
    SymmetricalGuidingLoss,
)
from monai_kd.networks import Teacher
from monai_kd.networks.nets import ENet, PolypPVT, RAUNet

KINDS = ("reference", "distillation")


class _System(NamedTuple):
    """What is distilled: networks, terms, supervised loss; channels and side of the image; the goal for the time."""

    title: str
    student: Callable[[], nn.Module]
    teacher: Callable[[], nn.Module]
    terms: Callable[[], list[DistillationTerm]]
    loss: Callable[[Any, torch.Tensor], torch.Tensor]
    channels: int
    size: int
    goal: float


def _emkd_terms() -> list[DistillationTerm]:
    layers = {
        "student_layer": ["encoder.stem", "encoder.stage3"],
        "teacher_layer": ["encoder.stem", "encoder.stage2"],
    }
    return [
        DistillationTerm(KDLoss(temperature=4.0), 0.1, name="pmd"),
        DistillationTerm(ImportanceMapLoss(), 0.9, name="imd", **layers),
        DistillationTerm(RegionAffinityLoss(num_classes=2), 0.9, name="rad", **layers),
    ]


def _kdas_terms() -> list[DistillationTerm]:
    both = ["scale1", "scale2"]
    return [
        DistillationTerm(AttentionSupervisionLoss(), 0.2, both, both, name="at"),
        DistillationTerm(SymmetricalGuidingLoss(), 0.2, "scale2", "scale2", name="sgm"),
    ]


SYSTEMS = {
    "emkd": _System(
        "RA-UNet -> ENet, EMKD", partial(ENet, 1, 2), partial(RAUNet, 1, 2), _emkd_terms,
        DiceFocalLoss(to_onehot_y=True, softmax=True), channels=1, size=384, goal=1.03,
    ),
    "kdas": _System(
        "Polyp-PVT B2 -> B0, KDAS", partial(PolypPVT, "b0"), partial(PolypPVT, "b2"), _kdas_terms,
        DeepSupervisionLoss(DiceCELoss(sigmoid=True), weight_mode="same"), channels=3, size=352, goal=1.05,
    ),
}  # fmt: skip


class _TeacherForward:
    """The teacher's forward pass alone."""

    def __init__(self, teacher: Teacher) -> None:
        self.teacher = teacher

    def attach(self, engine: Any) -> None:
        engine.add_event_handler(Events.STARTED, lambda engine: self.teacher.to(engine.state.device))
        engine.add_event_handler(
            IterationEvents.FORWARD_COMPLETED, lambda engine: self.teacher(engine.state.output["image"])
        )


def _trainer(
    system: _System, kind: str, size: int, batch: int, steps: int, device: torch.device, amp: bool, weights: str
) -> SupervisedTrainer:
    set_determinism(0)
    student, teacher = system.student().to(device), Teacher(system.teacher())
    terms = system.terms()
    if weights == "auto":
        terms = [DistillationTerm(t.loss, "auto", t.student_layers, t.teacher_layers, name=t.name) for t in terms]
    handler = _TeacherForward(teacher) if kind == "reference" else DistillationHandler(teacher, terms)
    image, label = torch.rand(batch, system.channels, size, size), torch.zeros(batch, 1, size, size)
    label[..., size // 3 : size // 2, size // 3 : size // 2] = 1
    return SupervisedTrainer(
        device=device,
        max_epochs=0,
        train_data_loader=[{"image": image, "label": label}] * steps,
        network=student,
        optimizer=torch.optim.Adam(student.parameters(), 1e-3),
        loss_function=system.loss,
        train_handlers=[handler],
        decollate=False,
        amp=amp,
    )


def _seconds(trainer: SupervisedTrainer) -> float:
    """One round: the time of its steps."""
    trainer.state.max_epochs += 1
    if trainer.state.device.type == "cpu":
        start = time.process_time()
        trainer.run()
        return time.process_time() - start
    torch.cuda.synchronize()
    start = time.perf_counter()
    trainer.run()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text("ascii").split()[1])
    return pages * 4096


def memory(kind: str, system: str, size: int, batch: int, amp: bool = False, weights: str = "fixed") -> None:
    """Print the peak memory in bytes of one kind of step, in a process of its own."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trainer = _trainer(SYSTEMS[system], kind, size, batch, 2, device, amp, weights)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        _seconds(trainer)
        print(json.dumps(torch.cuda.max_memory_allocated()))
        return
    base, peak, done = _resident(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.002):
            peak[0] = max(peak[0], _resident())

    thread = threading.Thread(target=watch)
    thread.start()
    _seconds(trainer)
    done.set()
    thread.join()
    print(json.dumps(peak[0] - base))


def step(
    system: str = "emkd",
    size: int = 0,
    batch: int = 4,
    steps: int = 4,
    rounds: int = 9,
    threads: int = 0,
    amp: bool = False,
    weights: str = "fixed",
) -> None:
    """
    Print the ratios of time and peak memory, distillation / reference, for `system` emkd or kdas. With `weights` auto
    the gradients of the terms are measured in each 50th step: take 50 steps a round.
    """
    if system not in SYSTEMS:
        raise ValueError(f"`system` must be one of {', '.join(SYSTEMS)}, but got {system!r}.")
    chosen = SYSTEMS[system]
    size = size or chosen.size
    if threads:
        torch.set_num_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    on_cpu = f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
    where = torch.cuda.get_device_name() if device.type == "cuda" else on_cpu
    shape = f"{batch} x {chosen.channels} x {size} x {size}"
    print(f"{chosen.title}, {shape}, {where}, torch {torch.__version__}, amp {amp}, weights {weights}")
    trainers = {kind: _trainer(chosen, kind, size, batch, steps, device, amp, weights) for kind in KINDS}
    for trainer in trainers.values():
        _seconds(trainer)  # warm-up
    times: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for number in range(rounds):
        for kind in KINDS if number % 2 else reversed(KINDS):
            times[kind].append(_seconds(trainers[kind]) / steps)
    ratios = [b / a for a, b in zip(times["reference"], times["distillation"])]
    for kind in KINDS:
        print(f"{kind:<13} {statistics.median(times[kind]) * 1e3:9.1f} ms a step (median of {rounds} rounds)")
    spread = f"min {min(ratios):.3f}, max {max(ratios):.3f}"
    print(f"time ratio    {statistics.median(ratios):9.3f}    ({spread}; goal <= {chosen.goal})")
    fastest = min(times["distillation"]) / min(times["reference"])
    print(f"of fastest    {fastest:9.3f}    (the fastest round of each: what other programs disturb least)")
    del trainers
    options = {"system": system, "size": size, "batch": batch, "amp": amp, "weights": weights}
    command = [sys.executable, __file__, "memory", *(f"--{name}={value}" for name, value in options.items())]
    peaks = {kind: json.loads(subprocess.check_output([*command, "--kind", kind]).splitlines()[-1]) for kind in KINDS}
    for kind in KINDS:
        print(f"{kind:<13} {peaks[kind] / 2**20:9.1f} MiB peak")
    print(f"memory ratio  {peaks['distillation'] / peaks['reference']:9.3f}    (goal <= 1.05)")


if __name__ == "__main__":
    fire.Fire({"memory": memory, "step": step} if sys.argv[1:2] in (["memory"], ["step"]) else step)
