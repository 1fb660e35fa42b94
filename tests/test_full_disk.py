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

"""A law over all that writes a file: on a full disk the earlier files stay as they were, and no other is left."""

from __future__ import annotations

import ast
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from ignite.engine import Engine
from monai.data import MetaTensor
from monai.transforms import SaveImage

from monai_kd.bundle import BestCheckpointSaver, ResumeSaver
from monai_kd.bundle.demo_page import NAMES, write_json
from monai_kd.bundle.distil import distil
from monai_kd.bundle.staged_workflow import _write_settings
from monai_kd.cli.bundles import bundles
from monai_kd.cli.export import export
from monai_kd.corrections import store_soft_labels
from monai_kd.data import (
    WholeNiftiWriter,
    WholePictureWriter,
    write_dicom_series,
    write_endoscopy_phantoms,
    write_phantoms,
)
from monai_kd.data.scan_cases import _write_cache
from monai_kd.handlers import CaseMetricsHandler, FrameTableHandler
from monai_kd.networks import Teacher
from monai_kd.report import Table, write_report
from tests.bundle.frames_bundle import write_frames_bundle
from tests.bundle.zoo_bundles import write_nested
from tests.bundles.journey import ROOT

FULL = "File too large|os error 27|inline_container"  # as Python, Rust and torch say it
LIMIT = 700  # bytes, less than any of these files has
LIMITS = {"demo_scores": 20}  # but for this one


def report(folder: Path, number: int) -> None:
    write_report(folder / "report.html", f"Run {number}", [Table("t", {"a": ""}, [["x" * 900]])])


def case_table(folder: Path, number: int) -> None:
    row = {"case": "a", "class": "liver", "dice": 0.1 * number, "label_voxels": 1, "pred_voxels": 1}
    handler = CaseMetricsHandler(folder, ["liver"])
    handler._replace("cases.csv", [row] * 100, {"summary.json": {"dice": 0.1 * number}, "network.json": {}})


def frame_table(folder: Path, number: int) -> None:
    pair = {"pred": torch.ones(1, 2, 2), "probability": torch.full((1, 2, 2), 0.1 * number)}
    engine = SimpleNamespace(state=SimpleNamespace(batch=[{"case": "a" * 20}] * 40, output=[pair] * 40))
    FrameTableHandler(folder / "frames.csv")._write(engine)


def best_weights(folder: Path, number: int) -> None:
    network = torch.nn.Linear(40, 40)
    BestCheckpointSaver(folder / "model.pt", {"model": network})._replace(network.state_dict(), "model.pt")


def holder(folder: Path, number: int) -> None:
    """The file itself is small; the name of the machine is not."""
    trainer = SimpleNamespace(add_event_handler=lambda *_: None)
    module = sys.modules["monai_kd.bundle.claim_checkpoints"]
    before, module.socket.gethostname = module.socket.gethostname, lambda: "x" * 900
    try:
        module._lock(trainer, folder / "model.pt")
    finally:
        module.socket.gethostname = before


def stage_settings(folder: Path, number: int) -> None:
    (folder / "model.pt").touch()
    _write_settings(folder / "model.pt", {"text": "x" * 900, "number": number})


def soft_labels(folder: Path, number: int) -> None:
    pytest.importorskip("safetensors")
    data = [{"image": torch.ones(3, 20, 20), "label": torch.ones(1, 20, 20)}]
    store_soft_labels(data, Teacher(torch.nn.Conv2d(3, 2, 1)), folder, f"weights {number}")


def scans(folder: Path, number: int) -> None:
    _write_cache(folder, {f"{number}": {"text": "x" * 900}}, {})


def series(folder: Path, number: int) -> None:
    write_dicom_series(folder, np.full((20, 20, 2), number), np.eye(4))


def volumes(folder: Path, number: int) -> None:
    write_phantoms(folder, num_cases=1, size=32, num_slices=4, seed=number, progress=False)


def frames(folder: Path, number: int) -> None:
    write_endoscopy_phantoms(folder, "clinicdb", num_frames=1, size=48, seed=number, progress=False)


def exported(folder: Path, number: int) -> None:
    if number == 1:
        write_frames_bundle(folder / "bundle")
    export(str(folder / "bundle"), overwrite=True)


def mask(folder: Path, number: int) -> None:
    save = runpy.run_path(str(ROOT / "docs" / "deploy" / "run_exported.py"))["save"]
    pixels = np.random.RandomState(number).randint(0, 256, (60, 60)).astype(np.uint8)
    save(pixels, folder / "a_mask.png")


def volume_mask(folder: Path, number: int) -> None:
    script = runpy.run_path(str(ROOT / "docs" / "deploy" / "run_exported_volumes.py"))
    voxels = np.random.RandomState(number).randint(0, 256, (20, 20, 20)).astype(np.uint8)
    script["save"](script["Volume"](voxels, np.eye(4)), folder / "a_mask.nii.gz")


def demo_scores(folder: Path, number: int) -> None:
    write_json(folder / "demo.json", SimpleNamespace(dice=dict.fromkeys(NAMES, 0.1 * number)), seconds=1.0)


def resume_checkpoint(folder: Path, number: int) -> None:
    network = torch.nn.Linear(40, 40)
    saver = ResumeSaver(str(folder), {"model": network}, save_interval=1, n_saved=2)
    engine = Engine(lambda engine, batch: None)
    saver.attach(engine)
    engine.state.epoch = number - 1
    engine.run([0], max_epochs=number)


def saved(folder: Path, number: int, suffix: str, writer: type) -> None:
    shape = (1, 60, 60) if suffix == ".png" else (1, 60, 60, 2)
    pixels = torch.as_tensor(np.random.RandomState(number).randint(0, 256, shape))
    save = SaveImage(folder, output_ext=suffix, separate_folder=False, writer=writer, print_log=False)
    save(MetaTensor(pixels, affine=torch.eye(4), meta={"filename_or_obj": "a"}))


def nifti_mask(folder: Path, number: int) -> None:
    saved(folder, number, ".nii.gz", WholeNiftiWriter)


def picture_mask(folder: Path, number: int) -> None:
    saved(folder, number, ".png", WholePictureWriter)


WRITERS = [report, case_table, frame_table, best_weights, holder, stage_settings, soft_labels, scans, series, volumes]
WRITERS += [frames, exported, mask, volume_mask, demo_scores, resume_checkpoint, nifti_mask, picture_mask]


def content(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_earlier_files_stay(tmp_path, full_disk, write: Callable[[Path, int], Any]):
    write(tmp_path, 1)
    earlier = content(tmp_path)
    limit = LIMITS.get(write.__name__, LIMIT)
    assert max(map(len, earlier.values())) > limit
    with full_disk(limit), pytest.raises(Exception, match=FULL):
        write(tmp_path, 2)
    assert content(tmp_path) == earlier
    assert not [path for path in tmp_path.rglob("*") if "partial" in path.name]


def test_copied_bundle_is_whole_or_none(tmp_path, full_disk):
    """So that a second try is not refused."""
    with full_disk(LIMIT), pytest.raises(OSError, match="File too large"):
        bundles("copy", "liver_tumor_ct_emkd", str(tmp_path / "mine"))
    assert not (tmp_path / "mine").exists()
    bundles("copy", "liver_tumor_ct_emkd", str(tmp_path / "mine"))


def test_bundle_of_a_student_is_whole_or_none(tmp_path, full_disk):
    write_nested(tmp_path / "teacher")
    before = content(tmp_path)
    with full_disk(LIMIT), pytest.raises(OSError, match="File too large"):
        distil(str(tmp_path / "teacher"), output=str(tmp_path / "out"))
    assert content(tmp_path) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["teacher"]
    assert "Its bundle is" in distil(str(tmp_path / "teacher"), output=str(tmp_path / "out"))


# functions that write to a path which their caller has put aside, or to a folder of their own
ASIDE = {
    "monai_kd/bundle/export_formats.py",
    "monai_kd/data/csv_rows.py",
    "monai_kd/data/endoscopy_phantoms.py",
    "monai_kd/data/readable_items.py",
    "monai_kd/handlers/case_metrics_handler.py",
    "monai_kd/networks/load_nnunet.py",
}
WRITES = {"write_text", "write_bytes", "save", "savez", "to_csv", "save_file"}


def writes_in_place(file: Path) -> list[int]:
    """Lines of calls that write a file whose arguments or owner do not speak of ``aside``."""
    found = []
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        named = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in WRITES
        if named and "aside" not in ast.unparse(node):
            found.append(node.lineno)
    return found


def test_whatever_writes_a_file_writes_it_aside():
    """A new writer belongs in :py:func:`write_aside`, and in the list of the law above."""
    files = sorted((ROOT / "monai_kd").rglob("*.py"))
    found = {str(file.relative_to(ROOT)): writes_in_place(file) for file in files}
    assert {name: lines for name, lines in found.items() if lines and name not in ASIDE} == {}
