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

"""What distillation gains on generated CT: a teacher from elsewhere, few labels here."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import LoadImage, SaveImage
from torch import nn

from monai_kd.bundle.demo_cases import (
    FEWEST_CASES,
    LABELLED,
    SIZE,
    WINDOW,
    DemoCases,
    demo_cases,
)
from monai_kd.bundle.demo_page import (
    CONVERGED,
    NAMES,
    gain_of,
    last_fifth,
    pictures,
    tables,
    write_json,
)
from monai_kd.bundle.demo_training import (
    ITERATIONS,
    distillation,
    epochs_for,
    evaluate,
    predict,
    seconds_a_step,
    train,
)
from monai_kd.bundle.write_weights import write_weights
from monai_kd.data import ct_phantom, write_dicom_series
from monai_kd.report import write_report

STEPS = 7


def demo(
    output_dir: str = "monai_kd_demo",
    seed: int = 0,
    epochs: int = 0,
    num_cases: int = 240,
) -> str:
    """
    Show what distillation gains on generated CT with few labels, in 1 to 3 minutes.

    A teacher is trained with many labelled cases of another hospital. Here 4 cases have labels
    and many have none. A student with 60 times fewer weights is trained twice with the same
    labelled batches. Once it is alone; once it is distilled from the teacher, also on the
    unlabelled cases. Each call writes to a folder of its own.

    Args:
        output_dir: folder for the page, demo.json, the weights and the metrics of each case.
        seed: seed of the cases, the initial weights and the batches.
        epochs: epochs of 50 iterations, for all networks alike; 0 takes 6 to 8, by the
            machine's speed.
        num_cases: generated cases, half of them elsewhere, a sixth for the test; at least 36.

    Returns:
        what was gained in a sentence, the tables, the sentence again and the path of the HTML page.

    Raises:
        ValueError: when a number is out of range.
    """
    start = time.monotonic()
    _check(seed, epochs, num_cases)
    folder = Path(output_dir).expanduser().resolve() / time.strftime("%Y%m%d_%H%M%S")
    folder.mkdir(parents=True)
    with _quiet(), _one_thread():
        step = _steps(STEPS)
        step(f"generating {num_cases} CT cases")
        cases = demo_cases(num_cases, seed)
        step("timing a training step")
        epochs = epochs or _fitting_epochs()
        networks, curves = _train_all(cases, epochs, seed, step)
        step("evaluating the networks on the test cases, segmenting a DICOM series")
        runs = {}
        for name in NAMES:
            runs[name] = evaluate(networks[name], cases, folder / "eval" / name)
            write_weights(networks[name].state_dict(), folder / f"{name}.pt")
        _segment_dicom(networks["distilled"], folder, seed)
        figures = pictures(networks, cases.test[:3])
        step("writing the page")
        measured = tables(runs, networks)
    gain = gain_of(runs, networks, curves["distilled"])
    seconds = time.monotonic() - start
    notes = [_recipe(cases, epochs, seed, seconds), _convergence(curves)]
    page = write_report(
        folder / "report.html",
        gain.sentence,
        measured,
        figures,
        notes,
        figures_first=True,
    )
    write_json(folder / "demo.json", gain, seconds)
    texts = [gain.sentence, *(table.to_text() for table in measured), *notes]
    return "\n\n".join([*texts, f"{gain.sentence}\n{page}"])


def _check(seed: int, epochs: int, num_cases: int) -> None:
    limits = {"seed": (seed, 0), "epochs": (epochs, 0), "num_cases": (num_cases, FEWEST_CASES)}
    for name, (value, least) in limits.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ValueError(f"`{name}` must be an integer >= {least}, but got {value!r}.")


def _steps(total: int) -> Callable[[str], None]:
    done = iter(range(1, total + 1))
    return lambda text: _say(f"[{next(done)}/{total}] {text}")


def _say(text: str) -> None:
    print(text, flush=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Errors alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


@contextmanager
def _one_thread() -> Iterator[None]:
    """
    Small images gain nothing from more threads, which wait for each other on a busy machine. The
    result is the same whatever the number of cores.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _fitting_epochs() -> int:
    step = seconds_a_step()
    epochs = epochs_for(step)
    _say(
        f"  {step:.3f} s, so each network is trained for {epochs} epochs of {ITERATIONS} "
        f"iterations (`--epochs {epochs}` repeats this run)"
    )
    return epochs


def _train_all(
    cases: DemoCases, epochs: int, seed: int, step: Callable[[str], None]
) -> tuple[dict[str, nn.Module], dict[str, list[float]]]:
    """The teacher, the student alone, and the same student distilled."""
    networks: dict[str, nn.Module] = {}
    curves: dict[str, list[float]] = {}
    step(f"training the teacher: {len(cases.elsewhere)} labelled cases elsewhere")
    teacher, curves["teacher"] = train("teacher", cases, epochs, seed, _say)
    networks["teacher"] = teacher
    step(f"training the student alone: {LABELLED} labelled cases")
    networks["alone"], curves["alone"] = train("student", cases, epochs, seed, _say)
    number = len(cases.unlabelled)
    step(f"training the student distilled: {LABELLED} labelled and {number} unlabelled cases")
    handlers = [distillation(teacher, cases, seed)]
    networks["distilled"], curves["distilled"] = train(
        "student",
        cases,
        epochs,
        seed,
        _say,
        handlers,
    )
    return networks, curves


def _segment_dicom(network: nn.Module, folder: Path, seed: int) -> None:
    """Write a new case as a DICOM series, read it and segment it with the distilled student."""
    draw = np.random.RandomState([seed, 99])
    phantom = ct_phantom(int(draw.randint(2**31)), SIZE)
    series = folder / "dicom_series"
    write_dicom_series(series, phantom.image, phantom.affine)
    image: Any = LoadImage(reader="PydicomReader", ensure_channel_first=True)(series)
    logits = predict(network, WINDOW(image)[None])
    mask = image.clone()
    mask.set_array(logits.argmax(dim=1).to(torch.uint8))
    save = SaveImage(folder / "dicom_masks", "seg", dtype=np.uint8, separate_folder=False)
    save.log = False
    save(mask)


def _recipe(cases: DemoCases, epochs: int, seed: int, seconds: float) -> str:
    return (
        f"Generated CT, seed {seed}. The teacher was trained with {len(cases.elsewhere)} "
        f"labelled cases of another hospital, both students with the same {LABELLED} labelled "
        f"cases, batches and augmentation; the distilled one also saw "
        f"{len(cases.unlabelled)} unlabelled cases. All: {epochs * ITERATIONS} iterations, "
        f"the last weights. {seconds:.0f} s in one CPU thread. "
        f"A demonstration; docs/results has what real data says."
    )


def _convergence(curves: dict[str, list[float]]) -> str:
    gained = {name: last_fifth(curve) for name, curve in curves.items()}
    parts = [f"{name} {gained[name]:+.3f}" for name in NAMES]
    alone = gained["alone"]
    if alone < CONVERGED:
        verdict = "The student alone has stopped rising (docs/results/demo.md has longer trainings)"
    else:
        verdict = "The student alone still rises; more `--epochs` would show by how much"
    return f"{verdict}. Validation Dice gained in the last fifth of the epochs: {', '.join(parts)}."
