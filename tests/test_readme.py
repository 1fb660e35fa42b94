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

"""Every block and every claim of README.md that a machine can check: it is what a new user types."""

from __future__ import annotations

import csv
import json
import re
import shlex
from pathlib import Path
from typing import Any

import nibabel
import pytest

from monai_kd.bundle import shipped_bundles
from monai_kd.cli import main
from monai_kd.data import ct_phantom, write_dicom_series, write_phantoms
from tests.bundle.zoo_bundles import write_nested
from tests.bundles.journey import LIVER, SMALL, run_command, undisturbed
from tests.bundles.test_overlay import OVERLAY

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.M | re.S)
MAKE, FOREIGN, BUNDLE = (block for language, block in BLOCKS if language == "bash")
(PIPELINE,) = (block for language, block in BLOCKS if language == "python")


def test_there_is_no_block_that_no_test_runs():
    assert [language for language, _ in BLOCKS] == ["bash", "python", "yaml", "bash", "bash"]
    assert [block for language, block in BLOCKS if language == "yaml"] == [OVERLAY]  # tests/bundles runs it


def test_three_screens():
    assert len(README.splitlines()) <= 3 * 45


def test_make_has_the_targets():
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = re.findall(r"^make (\w+)", MAKE, re.M) + re.findall(r"`make (\w+)`", README)
    assert {"demo", "test"} < set(targets)
    for target in targets:
        assert re.search(rf"^{target}:.*##", makefile, re.M), target


def test_versions_are_those_of_the_installation():
    setup = (ROOT / "setup.py").read_text("utf-8")
    for name, version in re.findall(r"(torch|MONAI) >= ([\d.]+)", README):
        assert f'"{name.lower()}>={version}' in setup


def test_links_lead_somewhere():
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert len(links) > 4
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_all_bundles_are_listed():
    listed = dict(re.findall(r"^\| \[(\w+)\]\((\S+)\) \|", README, re.M))
    assert listed == {name: f"bundles/{name}/docs/README.md" for name in shipped_bundles()}


def test_pipeline_trains_and_prints_what_its_comment_says(capsys):
    with undisturbed():
        exec(compile(PIPELINE, "README.md", "exec"), {"__name__": "__main__"})
    printed = re.findall(r"'?(\w+)'?: ", capsys.readouterr().out.splitlines()[-1])
    promised = PIPELINE.splitlines()[-1].partition("# ")[2].partition(";")[0].split(", ")
    assert sorted(printed) == sorted(promised)
    assert {"loss", "loss_supervised"} < set(printed)


def test_foreign_bundle_and_nnunet(tmp_path, monkeypatch, capsys):
    """The commands of section 2, the first one on a small bundle, the second as far as it goes without nnU-Net."""
    distil, shrink = (shlex.split(line)[3:] for line in FOREIGN.splitlines())
    monkeypatch.chdir(tmp_path)
    write_nested(tmp_path / "path" / "to" / "bundle")
    with undisturbed():
        assert main(distil) == 0
        assert (tmp_path / "path" / "to" / "small_bundle" / "models" / "model.pt").is_file()
        assert main(shrink) == 1
    assert "must be a results folder of nnU-Net" in capsys.readouterr().err


@pytest.fixture(scope="module")
def walked(tmp_path_factory) -> Path:
    """The folder `liver` after all commands of section 3, on a few phantoms and with two iterations for a training."""
    folder = tmp_path_factory.mktemp("readme")
    data = write_phantoms(folder / "data", "lits", num_cases=6, size=64, num_slices=5, progress=False)
    phantom = ct_phantom(seed=100, size=64, num_slices=5)
    scans = folder / "ct"
    write_dicom_series(scans / "series", phantom.image, phantom.affine)
    nibabel.save(nibabel.Nifti1Image(phantom.image, phantom.affine), scans / "scan.nii.gz")
    for line in BUNDLE.splitlines():
        for command in line.split(" && "):
            words = shlex.split(command.replace("$DATA", str(data)).replace("$CT", str(scans)))
            if words[0] == "cd":
                folder = folder / words[1]
            else:
                run_command(words + shorter(command), folder)
    return folder


def shorter(command: str) -> list[str]:
    """Overrides that make a command quick and change nothing else."""
    extra: dict[str, Any] = {}
    if "train.yaml" in command:
        extra = {key: value for key, value in SMALL[LIVER].items() if "evaluate" not in command or "::" not in key}
    elif "inference.json" in command:
        extra = {"patch_size": SMALL[LIVER]["patch_size"]}
    return [word for key, value in extra.items() for word in (f"--{key}", str(value))]


@pytest.mark.slow
def test_commands_leave_three_networks_and_a_comparison(walked):
    assert {path.name for path in (walked / "models").glob("*.pt")} == {"teacher.pt", "student_alone.pt", "model.pt"}
    tables = {}
    for run in ("student_alone", "model", "teacher"):
        with open(walked / "eval" / run / "cases.csv", newline="") as file:
            tables[run] = list(csv.DictReader(file))
        assert {"dice", "voe", "rvd"} < set(json.loads((walked / "eval" / run / "summary.json").read_text())["tumor"])
    assert len({tuple(row["case"] for row in table) for table in tables.values()}) == 1
    page = (walked / "eval" / "report.html").read_text("utf-8")
    assert all(text in page for text in ("student_alone", "model", "teacher", "Wilcoxon"))


@pytest.mark.slow
def test_commands_leave_a_mask_for_each_scan(walked):
    masks = {path.name: nibabel.load(path) for path in (walked / "masks").iterdir()}
    assert set(masks) == {"series_seg.nii.gz", "scan_seg.nii.gz"}
    for mask in masks.values():
        assert mask.shape == (64, 64, 5)
