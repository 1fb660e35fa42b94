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

"""The bundles with a teacher team: after all commands of their READMEs, and the stages on their own."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from monai.bundle import ConfigParser
from monai.networks.nets import UNet
from PIL import Image

import monai_kd.report
from monai_kd.bundle import KDWorkflow, StagedWorkflow
from monai_kd.data import endoscopy_cases, idrid_cases, isic_cases
from monai_kd.data.endoscopy_cases import CLINICDB
from monai_kd.networks.nets import TransUNet
from monai_kd.transforms import LoadMask, LoadRGB
from tests.bundles.as_trained import without_gain
from tests.bundles.journey import (
    BUNDLES,
    DATA,
    ENDOSCENE,
    SKIN,
    SMALL,
    TEAMS,
    TWINS,
    ablations,
    run_configs,
    undisturbed,
)
from tests.bundles.test_ablation import overrides

STAGES = ("teacher", "assistant_f", "assistant_b", "model")
ROWS = ablations((BUNDLES[SKIN] / "docs" / "README.md").read_text("utf-8"))
TABLE_2 = {
    "vanilla KD": [],
    "T + SC": ["similarity"],
    "T + TA_f": ["assistant_f"],
    "T + TA_b": ["assistant_b"],
    "T + TA_f + TA_b": ["assistant_f", "assistant_b"],
    "PLC-KD": ["assistant_f", "assistant_b", "similarity"],
}


# what the bundles may have of their own: data, and what follows from the number of images and the size of the object
OWN = {"dataset_dir", "classes", "frames", "cases", "test_cases", "split", "max_epochs", "batch_size", "val_interval"}
OWN |= {"false_pixel_queues", "boundary_swap"}


def parsed(*configs: str, **values: Any) -> ConfigParser:
    parser = ConfigParser()
    parser.read_config([str(BUNDLES[SKIN] / "configs" / file) for file in configs])
    without_files = {f"{name}_ckpt": None for name in STAGES[:3]}
    parser.update({"teacher_def::backbone": "tiny"} | without_files | values)
    if len(configs) == 1:  # as a module: a callable would need a checkpoint
        parser["teacher_def::_mode_"] = "default"
    return without_gain(parser)


@pytest.mark.parametrize("row", TABLE_2)
def test_rows_of_table_2_have_their_parts(row):
    parser = parsed("train.yaml", **overrides(ROWS[row]))
    assert list(parser.get_parsed_content("corrections")) == TABLE_2[row]
    corrected = parser.get_parsed_content("corrected_teacher")
    assert (corrected is not None) is bool(TABLE_2[row])
    (handler,) = parser.get_parsed_content("distillation")
    assert handler.teacher is (corrected or parser.get_parsed_content("teacher"))


def test_objective_is_equation_1():
    parser = parsed("train.yaml")
    (term,) = parser.get_parsed_content("distillation::0::terms")
    assert (term.weight, term.loss.temperature, term.loss.direction) == ("auto", 1.0, "forward")
    logits = torch.randn(2, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    label = (torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(1)) > 0.7).float()
    p = logits.softmax(1)
    both = torch.cat([1 - label, label], 1)
    overlap = (p * both).sum((2, 3))
    dice = 1 - (2 * overlap + 1e-5) / (p.sum((2, 3)) + both.sum((2, 3)) + 1e-5)
    expected = dice.mean() - (both * p.log()).sum(1).mean()
    torch.testing.assert_close(parser.get_parsed_content("loss")(logits, label), expected)


@pytest.mark.parametrize("stage", STAGES[:3])
def test_teacher_and_assistants_have_one_architecture(stage):
    parser = parsed("train.yaml", f"train_{stage}.yaml")
    network = parser.get_parsed_content("network_def")
    assert isinstance(network, TransUNet)
    assert parser.get_parsed_content("best_ckpt").endswith(f"models/{stage}.pt")
    assert parser.get_parsed_content("distillation") == []
    assert parser.get("boundary_swap")["prob"] == (1.0 if stage == "assistant_b" else 0.0)
    assert ("false_pixels" in parser.get("resume::states")) is (stage == "assistant_f")


def test_student_is_monais():
    assert isinstance(parsed("train.yaml").get_parsed_content("network_def"), UNet)


@pytest.mark.parametrize("name", TWINS)
def test_bundles_differ_by_their_data_only(name):
    """What is tested of one of them here holds for all."""
    own, other = BUNDLES[name], BUNDLES[SKIN]
    for path in (other / "configs").glob("*.yaml"):
        configs = [yaml.safe_load((folder / "configs" / path.name).read_text("utf-8")) for folder in (own, other)]
        if path.name == "train.yaml":
            configs = [{key: value for key, value in config.items() if key not in OWN} for config in configs]
        assert configs[0] == configs[1], path.name
    inference = [json.loads((folder / "configs" / "inference.json").read_text("utf-8")) for folder in (own, other)]
    assert {key for key in inference[1] if inference[0][key] != inference[1][key]} == {"_desc_", "dataset_dir"}
    assert ablations((own / "docs" / "README.md").read_text("utf-8")) == ROWS
    assert {path.name for path in own.rglob("*")} == {path.name for path in other.rglob("*")}


def test_split_of_endoscene_is_the_published_one():
    """547, 183 and 182 frames, each once; of CVC-612, which is CVC-ClinicDB, whole video sequences."""
    config = yaml.safe_load((BUNDLES[ENDOSCENE] / "configs" / "train.yaml").read_text("utf-8"))["frames"]
    frames = {
        part: [(name, n) for name, ranges in data.items() for first, last in ranges for n in range(first, last + 1)]
        for part, data in config.items()
    }
    assert {part: len(of_part) for part, of_part in frames.items()} == {"train": 547, "validation": 183, "test": 182}
    everything = [*(("CVC-300", n) for n in range(1, 301)), *(("CVC-612", n) for n in range(1, 613))]
    assert sorted(frame for of_part in frames.values() for frame in of_part) == everything
    ranges = [limits for data in config.values() for limits in data["CVC-612"]]
    assert {first for first, _ in ranges} <= set(CLINICDB)
    assert {last + 1 for _, last in ranges} <= {*CLINICDB, 613}


@pytest.fixture(scope="module")
def bundle(walked) -> Path:
    return walked(SKIN) / SKIN


@pytest.mark.slow
@pytest.mark.parametrize("name", TEAMS)
def test_every_stage_left_its_network(walked, name):
    for stage in STAGES:
        state = torch.load(walked(name) / name / "models" / f"{stage}.pt", weights_only=True)
        network = parsed("train.yaml").get_parsed_content("student_def")
        if stage != "model":
            network = TransUNet("tiny", img_size=64)
        network.load_state_dict(state, strict=True)


@pytest.mark.slow
def test_student_learns_what_the_parts_say(bundle, tmp_path):
    """Each row of Table 2 trains, no two of them alike."""
    options = SMALL[SKIN] | {"dataset_dir": str(bundle.parent / "data" / DATA[SKIN]), "tensorboard": False}
    options |= {f"{name}_ckpt": str(bundle / "models" / f"{name}.pt") for name in STAGES[:3]}
    options |= {"train::trainer::epoch_length": 1, "bundle_root": str(tmp_path)}
    gradients = {}
    for row in [*TABLE_2, "student alone"]:
        values = overrides(ROWS[row])
        workflow = run_configs(BUNDLES[SKIN], ["train.yaml"], **options, **values)
        path = tmp_path / "models" / "resume" / f"{values['ckpt_name']}_checkpoint_epoch=1.pt"
        moments = torch.load(path, weights_only=True)["optimizer"]["state"].values()
        gradients[row] = torch.cat([moment["exp_avg"].flatten() for moment in moments])
        metrics = workflow.parser.get_parsed_content("train::trainer").state.metrics
        names = ["teacher", *TABLE_2.get(row, [])] if TABLE_2.get(row) else []
        assert list(metrics) == [f"false_pixels_{name}" for name in names]
        counts = list(metrics.values())
        assert counts == sorted(counts, reverse=True)
        assert not counts or (counts[-1] == 0) is ("similarity" in TABLE_2[row])
    del gradients["T + TA_f + TA_b"]  # the same as T + TA_b where TA_f puts no pixel right, as it may after two steps
    assert [pair for pair in combinations(gradients, 2) if torch.equal(*(gradients[row] for row in pair))] == []


@pytest.mark.slow
def test_figure_shows_photographs_in_their_colours(bundle, tmp_path, monkeypatch):
    """The command's picture, and what is drawn of cases that were chosen."""
    with Image.open(bundle / "eval" / "correction_figure.png") as picture:
        assert picture.format == "PNG"
        assert picture.width > 4 * 110
    drawn: list[Any] = []
    monkeypatch.setattr(monai_kd.report, "correction_figure", lambda cases: drawn.extend(cases) or b"drawn")
    options = SMALL[SKIN] | {"dataset_dir": str(bundle.parent / "data" / DATA[SKIN]), "bundle_root": str(tmp_path)}
    options |= {f"{name}_ckpt": str(bundle / "models" / f"{name}.pt") for name in STAGES[:3]}
    options |= {"figure_cases": "$@split['train'][1:3]", "use_b": False, "image_size": [64, 80]}  # their own
    run_configs(BUNDLES[SKIN], ["train.yaml", "correction_figure.yaml"], **options)
    assert (tmp_path / "eval" / "correction_figure.png").read_bytes() == b"drawn"
    cases = isic_cases(bundle.parent / "data" / DATA[SKIN], "training")[1:3]
    assert [case.name for case in drawn] == [case["case"] for case in cases]
    for case, files in zip(drawn, cases, strict=True):
        torch.testing.assert_close(case.image, LoadRGB()(files["image"]).as_tensor())
        assert torch.equal(case.label, LoadMask()(files["label"]).as_tensor())
        assert list(case.soft_labels) == ["teacher", "assistant_f", "similarity"]
        assert torch.equal(case.soft_labels["similarity"].argmax(0, keepdim=True), case.label.long())


@pytest.mark.slow
def test_stored_soft_labels_train_the_student(bundle):
    stored = list((bundle / "cache" / "soft_labels").glob("*.safetensors"))
    assert len(stored) == 12
    assert (bundle / "models" / "stored.pt").is_file()


@pytest.mark.slow
def test_stale_soft_labels_are_refused(bundle, tmp_path):
    options = SMALL[SKIN] | {"dataset_dir": str(bundle.parent / "data" / DATA[SKIN]), "stored": True}
    options |= {f"{name}_ckpt": str(bundle / "models" / f"{name}.pt") for name in STAGES[:3]}
    options |= {"soft_label_dir": str(bundle / "cache" / "soft_labels"), "bundle_root": str(tmp_path)}
    for other, said in (
        ({"use_sc": False}, "must be that of the stored soft labels, but got use_sc True and not False in"),
        ({"max_candidates": 64}, "must be that of the stored soft labels, but got max_candidates None and not 64 in"),
        ({"image_size": [48, 48]}, "`folder` must hold a soft label for this image"),
    ):
        with pytest.raises(RuntimeError) as error:
            run_configs(BUNDLES[SKIN], ["train.yaml"], **(options | other))
        assert said in _all(error.value)


def _all(error: BaseException | None) -> str:
    return "" if error is None else f"{error}{_all(error.__cause__ or error.__context__)}"


def cases_of_test(name: str, data: Path) -> list[dict[str, str]]:
    if name == ENDOSCENE:
        frames = [("CVC-300", 149), ("CVC-300", 150), ("CVC-612", 1), ("CVC-612", 2), ("CVC-612", 3)]
        found = {case["case"]: case for case in endoscopy_cases(data)}
        return [found[f"{dataset}_{number}"] for dataset, number in frames]
    return isic_cases(data, "test") if name == SKIN else idrid_cases(data, "test")


@pytest.mark.slow
@pytest.mark.parametrize("name", TEAMS)
def test_evaluation_is_of_the_test_images(walked, name):
    with open(walked(name) / name / "eval" / "model" / "cases.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    cases = cases_of_test(name, walked(name) / "data" / DATA[name])
    assert len(cases) == 5
    assert [row["case"] for row in rows] == [case["case"] for case in cases]
    for row, case in zip(rows, cases):
        assert int(row["label_voxels"]) == int(LoadMask()(case["label"]).sum())
        assert row["group"] == case["dataset"]


def killed_at(stage: str, initialize: Callable[[KDWorkflow], None]) -> Callable[[KDWorkflow], None]:
    def stop(workflow: KDWorkflow) -> None:
        if workflow.parser.get_parsed_content("ckpt_name") == stage:
            raise KeyboardInterrupt
        initialize(workflow)

    return stop


class TestStages:
    """One command for all of them."""

    @staticmethod
    def run(root: Path, data: Path, **override: Any) -> list[str]:
        """The names of the weights that were written."""
        models = root / "models"
        before = {path.name: path.stat().st_mtime_ns for path in models.glob("*.pt")}
        options = SMALL[SKIN] | {"dataset_dir": str(data), "bundle_root": str(root), "tensorboard": False}
        options |= {"train::trainer::epoch_length": 1, "logging_file": False}
        with undisturbed():
            workflow = StagedWorkflow(str(BUNDLES[SKIN] / "configs" / "train.yaml"), **(options | override))
            workflow.initialize()
            workflow.run()
            workflow.finalize()
        now = sorted(models.glob("*.pt"), key=lambda path: path.stat().st_mtime_ns)
        return [path.stem for path in now if before.get(path.name) != path.stat().st_mtime_ns]

    @pytest.mark.slow
    def test_finished_stages_are_left_out_and_stopped_ones_go_on(self, bundle, tmp_path, monkeypatch, caplog):
        data = bundle.parent / "data" / DATA[SKIN]
        assert self.run(tmp_path, data) == [*STAGES[:3], "student_alone", "model"]
        page = tmp_path / "eval" / "report.html"
        assert all(name in page.read_text("utf-8") for name in ("student_alone", "model", "teacher"))
        written = page.stat().st_mtime_ns
        assert self.run(tmp_path, data) == []
        assert page.stat().st_mtime_ns == written
        match = r"last stage must have the settings that .*model.pt was trained with, but got kd_weight.* and not 0.5"
        with pytest.raises(ValueError, match=match):
            self.run(tmp_path, data, kd_weight=0.5, num_workers=0)
        assert "was trained with" not in caplog.text
        assert self.run(tmp_path, data, ckpt_name="other", use_b=False) == ["other"]  # the last stage's name alone
        assert f"{tmp_path / 'models' / 'teacher.pt'} was trained with use_b True and not False" in caplog.text

        (tmp_path / "models" / "assistant_b.pt").unlink()
        for path in (tmp_path / "models" / "resume").glob("assistant_b*"):
            path.unlink()
        assert self.run(tmp_path, data) == ["assistant_b", "student_alone", "model"]  # and what comes after it
        assert page.stat().st_mtime_ns > written

        # a teacher that was trained by itself since then
        teacher, seconds = tmp_path / "models" / "teacher.pt", (tmp_path / "models" / "model.pt").stat().st_mtime + 9
        os.utime(teacher, (seconds, seconds))
        assert self.run(tmp_path, data) == []
        assert f"model.pt is older than {teacher}: it may have learnt from earlier weights" in caplog.text
        os.utime(teacher, (0, 0))

        # a student of an earlier assistant is not taken for finished, though the new one was killed before it began
        (tmp_path / "models" / "assistant_b.pt").unlink()
        for path in (tmp_path / "models" / "resume").glob("assistant_b*"):
            path.unlink()
        earlier = (tmp_path / "models" / "model.pt").read_bytes()
        with monkeypatch.context() as patched:
            patched.setattr(KDWorkflow, "initialize", killed_at("model", KDWorkflow.initialize))
            with pytest.raises(KeyboardInterrupt):
                self.run(tmp_path, data)
        assert earlier in [path.read_bytes() for path in (tmp_path / "models").glob("model.pt.old*")]
        assert self.run(tmp_path, data) == ["model"]  # the student alone was trained before

        resume = tmp_path / "models" / "resume"
        before = {path.name for path in resume.iterdir()}
        assert "assistant_f_checkpoint_epoch=1.pt" in before
        for path in resume.glob("teacher*"):
            path.unlink()  # which may be deleted when training is done
        self.run(tmp_path, data, max_epochs=2)
        state = torch.load(resume / "assistant_f_checkpoint_epoch=2.pt", weights_only=True)
        assert state["trainer"]["iteration"] == 2
        assert set(state["false_pixels"]["queues"]) == {"0", "1"}
        assert not (resume / "teacher_checkpoint_epoch=2.pt").exists()

    def test_configuration_without_stages_is_refused(self, tmp_path):
        config = tmp_path / "configs" / "train.yaml"
        config.parent.mkdir()
        config.write_text("bundle_root: .\n")
        with (
            undisturbed(),
            pytest.raises(ValueError, match="`stages` must be an entry of .*, but got None"),
        ):
            StagedWorkflow(os.fspath(config), logging_file=False)
