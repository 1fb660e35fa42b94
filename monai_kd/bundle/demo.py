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

"""The whole way in minutes, on CT that is generated: train, distil, evaluate, infer."""

from __future__ import annotations

import logging
import shutil
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import LoadImage, Orientation

from monai_kd.bundle.locate import locate_bundle
from monai_kd.bundle.run_stage import run_stage
from monai_kd.data import ct_phantom, k_fold, lits_cases, write_dicom_series, write_phantoms
from monai_kd.report import (
    OverlayCase,
    Table,
    cost_table,
    network_cost,
    overlay,
    paired_table,
    read_cases,
    summary_table,
    write_report,
)
from monai_kd.transforms import CTWindow, TaskLabeld

BUNDLE = "liver_tumor_ct_emkd"
CLASSES = ["liver", "tumor"]  # task "multi" of the bundle
SIZE = 96
# what makes the bundle small enough for two CPU cores; the rest is as real data is trained
SMALL = {"task": "multi", "classes": CLASSES, "patch_size": [SIZE, SIZE], "num_workers": 0, "batch_size": 4}
STUDENT = {"learning_rate": 0.003}  # in few iterations a small network needs larger steps
# the row "for small structures" of the bundle's README
OBJECTIVE = {"imd_weight": 0.05, "rad_weight": 0.2, "balance": "class"}
# the network's name in the table: (configurations, checkpoint, options)
STAGES: dict[str, tuple[list[str], str, dict[str, Any]]] = {
    "teacher RA-UNet": (["train.yaml", "train_teacher.yaml"], "teacher", {}),
    "ENet alone": (["train.yaml", "train_student.yaml"], "student_alone", STUDENT),
    "ENet distilled": (["train.yaml"], "model", STUDENT | OBJECTIVE),
}


def demo(output_dir: str = "monai_kd_demo", seed: int = 0, epochs: int = 4, num_cases: int = 40) -> str:
    """
    Train a teacher, a student alone and the same student distilled (EMKD) on generated CT; evaluate the three.

    It runs the bundle ``liver_tumor_ct_emkd``, the very one for LiTS, with small images and few epochs: 5 minutes on
    two CPU cores. Each call writes to a folder of its own.

    Args:
        output_dir: folder for the data, the bundle with its checkpoints, and the page.
        seed: seed of the data, the initial weights and the training.
        epochs: epochs of the students; the teacher gets twice as many.
        num_cases: generated cases, a fifth of them for the test, at least 10.

    Returns:
        the tables as text, and the path of the HTML page.

    Raises:
        ValueError: when a number is too small.
    """
    if epochs < 1 or num_cases < 10:
        raise ValueError(f"`epochs` must be >= 1 and `num_cases` >= 10, but got {epochs} and {num_cases}.")
    start, teacher_epochs = time.monotonic(), 2 * epochs
    folder = Path(output_dir).resolve() / time.strftime("%Y%m%d_%H%M%S")
    bundle = folder / BUNDLE
    step = _steps(3 + 2 * len(STAGES))
    with _quiet():
        step("generating CT phantoms")
        bars = sys.stderr.isatty()
        data = write_phantoms(folder / "data", "lits", num_cases=num_cases, size=SIZE, seed=seed, progress=bars)
        shutil.copytree(locate_bundle(BUNDLE), bundle, ignore=shutil.ignore_patterns("models", "eval", "cache"))
        places = {"dataset_dir": data, "ckpt_dir": bundle / "models", "output_dir": bundle / "eval"}
        common = {name: str(place) for name, place in places.items()} | SMALL | {"seed": seed}
        for name, (configs, checkpoint, options) in STAGES.items():
            length = {
                "max_epochs": teacher_epochs if checkpoint == "teacher" else epochs,
                "val_interval": min(2, epochs),
            }
            step(f"training {name}, {length['max_epochs']} epochs")
            run_stage(bundle, configs, logging_file=False, **common, **length, **options)
        for name, (configs, *_) in STAGES.items():
            step(f"evaluating {name}")
            run_stage(bundle, [*configs, "evaluate.yaml"], logging_file=False, **common)
        step("segmenting a DICOM series and the test cases")
        _segment_dicom(folder, bundle, seed)
        figures = _pictures(bundle, k_fold(lits_cases(data), fold=0)["test"][:3])
        step("measuring the networks")
        tables = _tables(bundle)
    minutes, threads = (time.monotonic() - start) / 60, torch.get_num_threads()
    notes = [
        f"Generated CT, {num_cases} cases, seed {seed}, {teacher_epochs} epochs of the teacher and {epochs} of the "
        f"students, {minutes:.1f} minutes on {threads} CPU thread{'s' if threads > 1 else ''}. A demonstration that "
        "everything runs, no result about CT: a student that comes near its teacher alone has little to learn from it. "
        "What real CT says is in docs/results."
    ]
    page = write_report(folder / "report.html", "EMKD on generated CT", tables, figures, notes)
    return "\n\n".join([*(table.to_text() for table in tables), *notes, f"report: {page}"])


def _steps(total: int) -> Callable[[str], None]:
    done = iter(range(1, total + 1))
    return lambda text: print(f"[{next(done)}/{total}] {text}", flush=True)


class _quiet(warnings.catch_warnings):
    """Progress bars, on a terminal, and errors alone."""

    def __enter__(self) -> Any:
        super().__enter__()
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)

    def __exit__(self, *exception: Any) -> None:
        logging.disable(logging.NOTSET)
        super().__exit__(*exception)


def _infer(bundle: Path, checkpoint: str, output: Path, cases: Any, **override: Any) -> None:
    run_stage(
        bundle,
        "inference.json",
        workflow_type="inference",
        logging_file=False,
        ckpt_path=str(bundle / "models" / f"{checkpoint}.pt"),
        output_dir=str(output),
        num_classes=len(CLASSES) + 1,
        patch_size=[SIZE, SIZE],
        **({"dataset_dir": str(cases)} if isinstance(cases, Path) else {"dataset::data": cases}),
        **override,
    )


def _segment_dicom(folder: Path, bundle: Path, seed: int) -> None:
    phantom = ct_phantom(seed=seed + 10_000, size=SIZE)
    series = folder / "dicom_series"
    write_dicom_series(series, phantom.image, phantom.affine)
    _infer(bundle, "model", folder / "dicom_masks", series)


def _pictures(bundle: Path, cases: list[dict[str, str]]) -> dict[str, bytes]:
    load, orient, window = LoadImage(ensure_channel_first=True), Orientation("RAS", labels=None), CTWindow("liver")
    task = TaskLabeld("label", "multi")
    masks: dict[str, list[np.ndarray]] = {}
    for name, (_, checkpoint, _) in STAGES.items():
        output = bundle / "eval" / f"predictions_{checkpoint}"
        teacher = {"_target_": "monai_kd.networks.nets.RAUNet", "in_channels": 1, "out_channels": len(CLASSES) + 1}
        _infer(bundle, checkpoint, output, cases, **({"network_def": teacher} if checkpoint == "teacher" else {}))
        masks[name] = [orient(load(output / f"{case['case']}_seg.nii.gz")) for case in cases]
    rows = []
    for i, case in enumerate(cases):
        image, label = orient(load(case["image"])), orient(load(case["label"]))
        label = task({"label": label})["label"]
        rows.append(OverlayCase(case["case"], window(image)[0], label[0], {name: masks[name][i][0] for name in masks}))
    caption = "Label (first column) and predictions, the liver outside and tumors inside"
    return {caption: overlay(rows, window=(0, 1), axcodes="RAS")}


def _tables(bundle: Path) -> list[Table]:
    runs = {name: read_cases(bundle / "eval" / checkpoint / "cases.csv") for name, (_, checkpoint, _) in STAGES.items()}
    from monai_kd.networks.nets import ENet, RAUNet

    networks = {"teacher RA-UNet": RAUNet(1, 3), "ENet alone": ENet(1, 3), "ENet distilled": ENet(1, 3)}
    costs = {name: network_cost(network, (1, 1, SIZE, SIZE), runs=10) for name, network in networks.items()}
    pair = {name: runs[name] for name in ("ENet alone", "ENet distilled")}
    return [summary_table(runs), cost_table(costs), paired_table(pair)]
