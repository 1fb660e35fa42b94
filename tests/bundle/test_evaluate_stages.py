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

"""Which evaluations are finished, and when the page is written; real networks are in test_walk_team.py."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from monai_kd.bundle import StagedWorkflow
from tests.bundles.journey import undisturbed

CSV = "case,class,dice,label_voxels,pred_voxels\na,tumor,0.5,9,9\nb,tumor,0.7,9,9\n"


@pytest.fixture
def bundle(tmp_path) -> Path:
    """A bundle whose stages and evaluations compute nothing."""
    configs = tmp_path / "configs"
    configs.mkdir()
    train = {
        "imports": ["$from pathlib import Path"],
        "bundle_root": ".",
        "ckpt_dir": "$@bundle_root + '/models'",
        "output_dir": "$@bundle_root + '/eval'",
        "ckpt_name": "model",
        "best_ckpt": "$@ckpt_dir + '/' + @ckpt_name + '.pt'",
        "max_epochs": 1,
        "distil": True,
        "text": CSV,
        "stages": {"teacher": ["teacher.json"], "model": []},
        "evaluated": ["teacher", "model"],
        "run": ["$Path(@best_ckpt).write_text('weights')"],
    }
    evaluate = {
        "distil": False,
        "folder": "$Path(@output_dir) / @ckpt_name",
        "run": [
            "$@folder.mkdir(parents=True, exist_ok=True)",
            "$(@folder / 'cases.csv').write_text(@text)",
            "$(@folder / 'summary.json').write_text('{}')",
        ],
    }
    files = {"train": train, "teacher": {"ckpt_name": "teacher"}, "evaluate": evaluate}
    for name, content in files.items():
        suffix = "yaml" if name == "evaluate" else "json"
        (configs / f"{name}.{suffix}").write_text(json.dumps(content))
    (tmp_path / "models").mkdir()
    return tmp_path


def run(bundle: Path, **override: Any) -> None:
    with undisturbed():
        workflow = StagedWorkflow(str(bundle / "configs" / "train.json"), logging_file=False, **override)
        workflow.initialize()
        workflow.run()
        workflow.finalize()


def times(bundle: Path) -> dict[str, int]:
    return {str(path.relative_to(bundle)): path.stat().st_mtime_ns for path in (bundle / "eval").rglob("*.*")}


def test_all_is_evaluated_and_compared_once(bundle):
    run(bundle)
    page = (bundle / "eval" / "report.html").read_text("utf-8")
    assert "teacher" in page
    assert "model" in page
    before = times(bundle)
    run(bundle)
    assert times(bundle) == before


@pytest.mark.parametrize("killed", ["teacher/cases.csv", "model/summary.json", "report.html"])
def test_what_was_killed_is_done_again(bundle, killed):
    run(bundle)
    before = times(bundle)
    (bundle / "eval" / killed).unlink()
    run(bundle)
    after = times(bundle)
    name = killed.split("/")[0]
    assert {path for path in before if before[path] != after[path]} == {
        path for path in before if path.startswith(f"eval/{name}") or path == "eval/report.html"
    }


def test_weights_that_are_newer_are_evaluated_again(bundle):
    run(bundle)
    before = times(bundle)
    newer = (bundle / "eval" / "report.html").stat().st_mtime + 1
    os.utime(bundle / "models" / "model.pt", (newer, newer))
    run(bundle)
    assert times(bundle)["eval/model/cases.csv"] != before["eval/model/cases.csv"]
    assert times(bundle)["eval/teacher/cases.csv"] == before["eval/teacher/cases.csv"]


def test_stage_that_is_not_there_is_refused(bundle):
    with (
        undisturbed(),
        pytest.raises(ValueError, match="`evaluated` must name stages, which are teacher, model, but got"),
    ):
        StagedWorkflow(str(bundle / "configs" / "train.json"), logging_file=False, evaluated=["student"])
