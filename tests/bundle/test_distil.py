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

"""A bundle that nobody here wrote gets a smaller network, and stays as it is."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Events
from monai.bundle import ConfigParser, ConfigWorkflow
from monai.networks.nets import UNet

from monai_kd import distil
from monai_kd.handlers import DistillationHandler
from monai_kd.losses import KDLoss
from monai_kd.networks import Teacher
from tests.bundle.zoo_bundles import UNET, write_flat, write_multilabel, write_nested
from tests.bundles.journey import undisturbed

WRITERS: dict[str, Callable[[Path], Path]] = {
    "nested": write_nested,
    "flat": write_flat,
    "multilabel": write_multilabel,
}


@pytest.fixture(autouse=True)
def _as_it_was():
    with undisturbed():
        yield


@pytest.fixture(params=["nested", "flat"])
def bundle(request, tmp_path) -> Path:
    return WRITERS[request.param](tmp_path / "teacher")


@pytest.fixture
def student_file(tmp_path) -> str:
    (tmp_path / "student.json").write_text(json.dumps(UNET | {"channels": [4, 8]}))
    return str(tmp_path / "student.json")


def file_of_unet(path: Path, **arguments: Any) -> str:
    """Random weights of the teacher's network with other arguments."""
    block = {key: value for key, value in UNET.items() if key != "_target_"} | arguments
    torch.save(UNet(**block).state_dict(), path)
    return str(path)


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "models" / "model.pt", weights_only=True)


def assert_equal(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for key, value in one.items():
        torch.testing.assert_close(other[key], value, rtol=0, atol=0)


def run_plainly(folder: Path, **override: Any) -> Any:
    """The bundle's own training, by MONAI alone; its network."""
    config = next((folder / "configs").glob("train.*"))
    run_id = "training" if config.suffix == ".yaml" else "run"
    workflow = ConfigWorkflow(str(config), logging_file=False, run_id=run_id, bundle_root=str(folder), **override)
    workflow.initialize()
    workflow.run()
    return workflow.parser.get_parsed_content("network")


def test_student_is_a_bundle_and_the_teacher_stays(bundle, tmp_path):
    before = files_of(bundle)
    said = distil(str(bundle), student="1/4", output=str(tmp_path / "out"))
    assert files_of(bundle) == before
    out = tmp_path / "out"
    for file in (*out.glob("configs/train.*"), *out.glob("configs/inference.*")):
        assert ConfigParser.load_config_file(str(file))["network_def"]["channels"] == [4, 8]
    assert len(weights(out)) == len(weights(bundle))
    assert weights(out)["model.0.conv.weight"].shape[0] == 4
    assert (out / "LICENSE").read_text() == "free\n"
    assert (out / "docs" / "README.md").read_text().endswith("# Small\n")
    meta = json.loads((out / "configs" / "metadata.json").read_text())
    assert meta["distillation"]["teacher"] == "teacher"
    assert meta["distillation"]["parameters"] == sum(value.numel() for value in weights(out).values())
    assert "teacher 0." in said
    assert "distilled 0." in said


def test_comments_of_the_configuration_stay(tmp_path):
    write_flat(tmp_path / "teacher")
    distil(str(tmp_path / "teacher"), output=str(tmp_path / "out"))
    before, after = ((tmp_path / name / "configs" / "train.yaml").read_text() for name in ("teacher", "out"))
    assert "epochs: 2  # more is better" in after
    assert len(before.splitlines()) - len(after.splitlines()) < 12


def test_student_predicts_without_monai_kd(tmp_path):
    """In a process where monai_kd cannot be imported."""
    distil(str(write_nested(tmp_path / "teacher")), output=str(tmp_path / "out"))
    block = "import sys; sys.modules['monai_kd'] = None; from monai.bundle import run; "
    call = "run(config_file='configs/inference.json', logging_file=False)"
    command = [sys.executable, "-c", block + call]
    done = subprocess.run(command, cwd=tmp_path / "out", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_weight_0_is_the_own_training_of_the_student(bundle, tmp_path):
    distil(str(bundle), output=str(tmp_path / "out"), weight=0)
    shutil.copytree(tmp_path / "out", tmp_path / "own")
    shutil.rmtree(tmp_path / "own" / "models")
    flat = (bundle / "configs" / "train.yaml").exists()  # which loads the teacher's weights in its training
    own = run_plainly(tmp_path / "own", **({"handlers::0::_disabled_": True} if flat else {}))
    last = torch.load(tmp_path / "out" / "models" / "resume" / "model_checkpoint_epoch=2.pt", weights_only=True)
    assert_equal(own.state_dict(), last["network"])


def test_distillation_changes_the_student(bundle, tmp_path):
    """And by the gradient of the divergence: with a large weight it comes nearer to its teacher."""
    distances = []
    longer = {"epochs": 12, "lr_scheduler::gamma": 1.0}
    for name, weight in (("alone", 0), ("taught", 100)):
        distil(str(bundle), output=str(tmp_path / name), weight=weight, override=longer)
        state = torch.load(tmp_path / name / "models" / "resume" / "model_checkpoint_epoch=12.pt", weights_only=True)
        student = ConfigParser({"net": UNET | {"channels": [4, 8]}}).get_parsed_content("net")
        student.load_state_dict(state["network"])
        teacher = Teacher(ConfigParser({"net": UNET}).get_parsed_content("net"), bundle / "models" / "model.pt")
        image = torch.sin(torch.arange(256.0).view(1, 1, 16, 16))
        distances.append(float(KDLoss(1.0)(student.eval()(image), teacher(image).logits)))
    assert distances[1] < 0.5 * distances[0]


def test_classes_that_overlap_get_a_sigmoid_each_and_scripts_are_found(tmp_path, monkeypatch):
    seen = []
    attach = DistillationHandler.attach
    monkeypatch.setattr(DistillationHandler, "attach", lambda self, engine: (seen.append(self), attach(self, engine)))
    bundle = write_multilabel(tmp_path / "teacher")
    (tmp_path / "student.yaml").write_text("_target_: scripts.nets.TwoHeads\nchannels: [4, 8]\nstrides: [2]\n")
    distil(str(bundle), student=str(tmp_path / "student.yaml"), output=str(tmp_path / "out"))
    assert next(iter(seen[0].losses.values())).activation == "sigmoid"
    assert weights(tmp_path / "out")["model.0.conv.weight"].shape[0] == 4
    assert "scripts" not in sys.modules


class Killed(BaseException):
    """Ends a run as a signal does."""


def test_killed_and_started_again_it_is_the_undisturbed_run(bundle, tmp_path, monkeypatch):
    options: dict[str, Any] = {"override": {"epochs": 3}}
    distil(str(bundle), output=str(tmp_path / "whole"), **options)
    attach = DistillationHandler.attach

    def and_die(self: Any, engine: Any) -> None:
        attach(self, engine)

        def die() -> None:
            raise Killed

        engine.add_event_handler(Events.ITERATION_COMPLETED(once=5), die)

    monkeypatch.setattr(DistillationHandler, "attach", and_die)
    with pytest.raises(Killed):
        distil(str(bundle), output=str(tmp_path / "parts"), **options)
    monkeypatch.setattr(DistillationHandler, "attach", attach)
    distil(str(bundle), output=str(tmp_path / "parts"), **options)
    name = "resume/model_checkpoint_epoch=3.pt"
    whole, parts = (torch.load(tmp_path / each / "models" / name, weights_only=True) for each in ("whole", "parts"))
    assert_equal(whole["network"], parts["network"])
    assert_equal(weights(tmp_path / "whole"), weights(tmp_path / "parts"))


def test_finished_is_said_and_not_done_again(tmp_path):
    bundle = write_nested(tmp_path / "teacher")
    first = distil(str(bundle), output=str(tmp_path / "out"))
    before = files_of(tmp_path / "out")
    assert distil(str(bundle), output=str(tmp_path / "out")) == first
    assert files_of(tmp_path / "out") == before


def test_other_settings_in_the_same_folder_are_refused(tmp_path, student_file):
    bundle = write_nested(tmp_path / "teacher")
    distil(str(bundle), output=str(tmp_path / "out"))
    with pytest.raises(ValueError, match="with the same settings, but in .*out `weight` is auto, and 0.5 is asked for"):
        distil(str(bundle), output=str(tmp_path / "out"), weight=0.5)
    with pytest.raises(ValueError, match="`student` is"):
        distil(str(bundle), student="1/2", output=str(tmp_path / "out"))


def test_folder_with_files_and_the_own_folder_are_refused(tmp_path):
    bundle = write_nested(tmp_path / "teacher")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").touch()
    with pytest.raises(FileExistsError, match="`output` must be a new or an empty folder"):
        distil(str(bundle), output=str(tmp_path / "full"))
    for output in (bundle, bundle / "student"):
        with pytest.raises(ValueError, match="`output` must not lie in the bundle, whose weights are the teacher's"):
            distil(str(bundle), output=str(output))


def test_dry_run_says_what_would_be_done_and_writes_nothing(bundle, tmp_path):
    text = distil(str(bundle), output=str(tmp_path / "out"), dry_run=True)
    assert not (tmp_path / "out").exists()
    assert "'channels': [4, 8]" in text
    assert "KDLoss(temperature=1, activation='softmax'), weight auto" in text
    assert ("left out: handlers::0" in text) is (bundle / "configs" / "train.yaml").exists()


def test_share_of_the_flops(tmp_path):
    text = distil(str(write_nested(tmp_path / "teacher")), flops="20%", output=str(tmp_path / "out"), dry_run=True)
    share = float(text.partition("% of its FLOPs")[0].rpartition(" ")[2])
    assert 18 <= share <= 22


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"student": "1/4", "flops": "10%"}, "`student` or `flops` must be given, but got both"),
        ({"student": "a quarter"}, "`student` must be a number as 0.25 or 1/4, but got 'a quarter'"),
        ({"student": "4"}, "`factor` must be above 0 and below 1, but got 4.0"),
        ({"weight": "much"}, "`weight` must be a number"),
        (
            {"trainer_id": "trainer"},
            "`trainer_id` must be the id of a trainer, but got 'trainer'; there is train::trainer",
        ),
        ({"config": "training"}, "`config` must be a configuration for training .* there is train.json"),
        ({"checkpoint": "none.pt"}, "`checkpoint` must be the file with the weights of the bundle, but got none.pt"),
        ({"override": {"epoch": 3}}, "did you mean `epochs`"),
        ({"student": "student.yaml"}, "`student` must be a part as 1/4 or an existing file"),
    ],
)
def test_wrong_arguments_before_anything_is_written(tmp_path, options, message):
    bundle = write_nested(tmp_path / "teacher")
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        distil(str(bundle), output=str(tmp_path / "out"), **options)
    assert not (tmp_path / "out").exists()


def test_overlay_without_its_base_is_refused(tmp_path):
    bundle = write_nested(tmp_path / "teacher")
    (bundle / "configs" / "many_gpus_train.json").write_text(json.dumps({"train#sampler#shuffle": True}))
    with pytest.raises(ValueError, match="`config` must be whole .* `--config train,many_gpus_train`"):
        distil(str(bundle), config="many_gpus_train")


def changed(bundle: Path, **entries: Any) -> Path:
    """The nested bundle with other entries in its configuration for training."""
    file = bundle / "configs" / "train.json"
    parser = ConfigParser(json.loads(file.read_text()))
    for key, value in entries.items():
        parser[key.replace("__", "::")] = value
    file.write_text(json.dumps(parser.get()))
    return bundle


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"train__trainer___target_": "GanTrainer"}, "must be a SupervisedTrainer, .* but got GanTrainer"),
        ({"train__trainer__iteration_update": "$print"}, "but got an `iteration_update` of its own"),
        ({"loss": {"_target_": "torch.nn.L1Loss"}}, "`activation` must be known, .* give --activation softmax"),
        ({"network_def": {"_target_": "monai.networks.nets.Regressor", "in_shape": [1, 16, 16], "out_shape": [2, 3, 4],
                          "channels": [4], "strides": [2]}}, "must hold the weights of Regressor"),
    ],
)  # fmt: skip
def test_what_cannot_be_distilled_is_refused_in_one_line(tmp_path, entries, message):
    bundle = changed(write_nested(tmp_path / "teacher"), **entries)
    with pytest.raises(ValueError, match=message) as error:
        distil(str(bundle), student=0.5, output=str(tmp_path / "out"))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("key", ["network_def::channels", "network_def#channels", "network_def"])
def test_override_of_the_network_is_of_the_teacher_and_not_of_the_student(bundle, tmp_path, key):
    wider = [16, 48]
    value: Any = wider
    if key == "network_def":
        config = next((bundle / "configs").glob("train.*"))
        value = dict(ConfigParser.load_config_file(str(config))["network_def"]) | {"channels": wider}
    teacher = file_of_unet(tmp_path / "wider.pt", channels=wider)
    out = tmp_path / "out"
    distil(str(bundle), student="1/4", output=str(out), override={key: value}, checkpoint=teacher)
    assert weights(out)["model.0.conv.weight"].shape[0] == 4
    for file in (*out.glob("configs/train.*"), *out.glob("configs/inference.*")):
        assert ConfigParser.load_config_file(str(file))["network_def"]["channels"] == [4, 12]


def test_argument_that_an_override_changes_is_in_the_bundle_of_the_student(bundle, tmp_path):
    teacher, out = file_of_unet(tmp_path / "other.pt", num_res_units=1), tmp_path / "out"
    override = {"network_def::num_res_units": 1}
    distil(str(bundle), output=str(out), override=override, checkpoint=teacher, weight=0)
    for file in (*out.glob("configs/train.*"), *out.glob("configs/inference.*")):
        assert ConfigParser.load_config_file(str(file))["network_def"]["num_res_units"] == 1
