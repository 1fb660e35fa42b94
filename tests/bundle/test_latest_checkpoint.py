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

"""Which checkpoint a run goes on from."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest
import torch
from ignite.engine import Engine
from monai.handlers import CheckpointSaver

from monai_kd.bundle import latest_checkpoint
from monai_kd.bundle.latest_checkpoint import resume_checkpoints


class Code:
    """A pickle that writes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


class Linear(torch.nn.Linear):
    """Something to save."""

    def __init__(self) -> None:
        super().__init__(1, 1)


def write(folder: Path, *names: str) -> list[Path]:
    """Checkpoints a second apart, the last one the newest."""
    for second, name in enumerate(names):
        torch.save({"epoch": torch.zeros(100)}, folder / name)
        os.utime(folder / name, (second, second))
    return [folder / name for name in names]


def test_newest_by_time_not_by_name(tmp_path):
    """A training that was started anew in the same folder has smaller epochs."""
    write(tmp_path, "model_checkpoint_epoch=10.pt", "model_checkpoint_epoch=9.pt", "model_checkpoint_epoch=2.pt")
    assert latest_checkpoint(tmp_path, "model") == f"{tmp_path}/model_checkpoint_epoch=2.pt"


def test_other_runs_in_the_folder_are_not_taken(tmp_path):
    write(
        tmp_path, "model_checkpoint_epoch=1.pt", "model_seed_1_checkpoint_epoch=4.pt", "teacher_checkpoint_epoch=9.pt"
    )
    assert latest_checkpoint(tmp_path, "model").endswith("model_checkpoint_epoch=1.pt")
    assert latest_checkpoint(str(tmp_path), "teacher").endswith("teacher_checkpoint_epoch=9.pt")
    assert latest_checkpoint(tmp_path).endswith("teacher_checkpoint_epoch=9.pt")
    write(tmp_path, "a[1]_checkpoint_epoch=3.pt")
    assert latest_checkpoint(tmp_path, "a[1]").endswith("a[1]_checkpoint_epoch=3.pt")


@pytest.mark.parametrize("size", [0, 10, 300])
def test_file_cut_off_is_passed_over(tmp_path, caplog, size):
    older, newer = write(tmp_path, "model_checkpoint_epoch=1.pt", "model_checkpoint_epoch=2.pt")
    newer.write_bytes(newer.read_bytes()[:size])
    assert latest_checkpoint(tmp_path, "model") == str(older)
    assert f"{newer} cannot be read and is passed over: " in caplog.text


@pytest.mark.parametrize("damage", ["hole", "bit"])
def test_damaged_file_is_passed_over(tmp_path, caplog, damage):
    """`torch.load` takes the flipped bit, and the hole where the weights are mapped and not read."""
    older, newer = write(tmp_path, "model_checkpoint_epoch=1.pt", "model_checkpoint_epoch=2.pt")
    torch.save({"model": {str(i): torch.ones(500) for i in range(20)}}, newer)
    content = bytearray(newer.read_bytes())
    middle = len(content) // 2
    if damage == "hole":
        content[middle : middle + 9000] = bytes(9000)
    else:
        content[middle] ^= 1
    newer.write_bytes(content)
    assert latest_checkpoint(tmp_path, "model") == str(older)
    assert f"{newer} cannot be read and is passed over: " in caplog.text


def other_form(path: Path, form: str) -> None:
    if form in ("text", "empty"):
        path.write_bytes(b"epoch 2" if form == "text" else b"")
    elif form == "code":
        torch.save({"x": Code(path.with_name("ran"))}, path)
    elif form == "legacy":
        torch.save({"trainer": {}}, path, _use_new_zipfile_serialization=False)
    elif form == "archive":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("word/document.xml", "text")
    else:
        path.mkdir()


@pytest.mark.parametrize("form", ["text", "empty", "code", "legacy", "archive", "folder"])
@pytest.mark.parametrize("earlier", [True, False])
def test_file_that_is_none_is_passed_over(tmp_path, caplog, form, earlier):
    newer = tmp_path / "model_checkpoint_epoch=2.pt"
    other_form(newer, form)
    if earlier:
        (older,) = write(tmp_path, "model_checkpoint_epoch=1.pt")
        assert latest_checkpoint(tmp_path, "model") == str(older)
    else:
        with pytest.raises(FileNotFoundError, match="with 1 unreadable"):
            latest_checkpoint(tmp_path, "model", trainer_with(seed=0))
    assert f"{newer} cannot be read and is passed over: " in caplog.text
    assert "\n" not in caplog.records[0].getMessage()


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ([1, 2], "list"),
        (torch.zeros(3), "Tensor"),
        (3, "int"),
        ("epoch", "str"),
        ({"trainer": [1]}, "an entry `trainer` of list"),
        ({"trainer": None}, "an entry `trainer` of NoneType"),
        ({"trainer": {"settings": ["seed"]}}, "an entry `settings` of list"),
    ],
)
@pytest.mark.parametrize("trainer", [True, False])
def test_checkpoint_of_another_form_is_an_error(tmp_path, content, kind, trainer):
    """An older one is not taken in its place."""
    write(tmp_path, "model_checkpoint_epoch=1.pt")
    newer = tmp_path / "model_checkpoint_epoch=2.pt"
    torch.save(content, newer)
    with pytest.raises(ValueError, match=rf"the dictionary that a training .* but got {newer} with {kind}; remove the"):
        latest_checkpoint(tmp_path, "model", trainer_with(seed=0) if trainer else None)


def test_weights_alone_are_not_gone_on_with(tmp_path):
    torch.save(torch.nn.Linear(2, 1).state_dict(), tmp_path / "model_checkpoint_epoch=1.pt")
    with pytest.raises(ValueError, match=r"epoch=1.pt with seed None and not 0; give"):
        latest_checkpoint(tmp_path, "model", trainer_with(seed=0))


NAMES = ["model", "model_checkpoint", "model_checkpoint_epoch=2", "model_checkpoint_final", "Model", "model_", "mod.l"]
NAMES += ["model[1]", "mode*", "m?del", "model.pt", "(model|x)", "model_checkpoint_epoch=2.pt", "modèle"]


@pytest.mark.parametrize("name", NAMES)
def test_run_has_its_own_checkpoints_alone(tmp_path, name):
    """Whatever other names begin with it, or it means as a pattern."""
    own = []
    for number, other in enumerate(NAMES):
        saver = CheckpointSaver(str(tmp_path), {"a": Linear(), "b": Linear()}, file_prefix=other, save_interval=1)
        engine = Engine(lambda *_: None)
        saver.attach(engine)
        engine.run([0], max_epochs=number + 1)
        own += [tmp_path / f"{other}_checkpoint_epoch={n + 1}.pt" for n in range(number + 1)] * (other == name)
    assert set(resume_checkpoints(tmp_path, name)) == set(own)
    assert latest_checkpoint(tmp_path, name) == str(own[-1])


def test_all_kinds_that_the_saver_writes_are_found(tmp_path):
    saver = CheckpointSaver(
        str(tmp_path),
        {"a": Linear(), "b": Linear()},
        file_prefix="model",
        save_final=True,
        save_key_metric=True,
        key_metric_negative_sign=True,
        save_interval=1,
        epoch_level=False,
    )
    engine = Engine(lambda *_: None)
    engine.state.key_metric_name = "loss"
    engine.add_event_handler("EPOCH_COMPLETED", lambda: engine.state.metrics.update(loss=0.5))
    saver.attach(engine)
    engine.run([0], max_epochs=1)
    found = {path.name for path in resume_checkpoints(tmp_path, "model")}
    assert found == {path.name for path in tmp_path.iterdir()}
    assert len(found) == 3


def test_files_of_the_system_are_none(tmp_path):
    """As macOS puts them beside each file on a disk of another system."""
    (path,) = write(tmp_path, "model_checkpoint_epoch=1.pt")
    (tmp_path / f"._{path.name}").write_bytes(b"")
    for prefix in ("model", ""):
        assert resume_checkpoints(tmp_path, prefix) == [path]


def test_file_system_that_does_not_tell_upper_from_lower_case(tmp_path, monkeypatch):
    """`Model` and `model` are one file there, so one run, under the name that the first of them gave."""
    write(tmp_path, "Model_checkpoint_epoch=1.pt")
    assert resume_checkpoints(tmp_path, "model") == []
    (tmp_path / "model_checkpoint_epoch=1.pt").symlink_to("Model_checkpoint_epoch=1.pt")  # what such a system finds
    monkeypatch.setattr("pathlib.Path.glob", lambda *_: iter([tmp_path / "Model_checkpoint_epoch=1.pt"]))
    assert resume_checkpoints(tmp_path, "model") == [tmp_path / "model_checkpoint_epoch=1.pt"]


def test_code_in_a_checkpoint_is_not_run(tmp_path):
    torch.save({"x": Code(tmp_path / "ran")}, tmp_path / "model_checkpoint_epoch=1.pt")
    with pytest.raises(
        FileNotFoundError, match=r"a readable checkpoint of `model` .* with 1 unreadable; start without"
    ):
        latest_checkpoint(tmp_path, "model")
    assert not (tmp_path / "ran").exists()


def trainer_with(**settings: object) -> Engine:
    trainer = Engine(lambda engine, batch: None)
    trainer.state.settings = settings
    return trainer


def test_run_of_other_settings_is_not_gone_on_with(tmp_path):
    """All that differs is named; an older checkpoint is not taken in its place."""
    (older,) = write(tmp_path, "model_checkpoint_epoch=1.pt")
    torch.save({"trainer": {"settings": {"seed": 1, "batch size": 4, "network": "ENet"}}}, older)
    newer = tmp_path / "model_checkpoint_epoch=2.pt"
    torch.save({"trainer": {"settings": {"seed": 0, "batch size": 8, "network": "ENet"}}}, newer)
    with pytest.raises(ValueError, match=r"epoch=2.pt with seed 0 and not 1, batch size 8 and not 4; give "):
        latest_checkpoint(tmp_path, "model", trainer_with(seed=1, network="ENet", **{"batch size": 4}))
    same = trainer_with(seed=0, network="ENet", **{"batch size": 8})
    assert latest_checkpoint(tmp_path, "model", same) == str(newer)
    assert latest_checkpoint(tmp_path, "model", Engine(lambda engine, batch: None)) == str(newer)


def test_checkpoint_without_settings_is_not_gone_on_with(tmp_path):
    write(tmp_path, "model_checkpoint_epoch=1.pt")
    with pytest.raises(ValueError, match="with seed None and not 1"):
        latest_checkpoint(tmp_path, "model", trainer_with(seed=1))


def test_nothing_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"`folder` must hold a readable .*nowhere with 0 unreadable"):
        latest_checkpoint(tmp_path / "nowhere", "model")


def test_checkpoint_of_an_earlier_release_is_gone_on_with(tmp_path, caplog):
    """Its settings have other names, so that they cannot be compared."""
    (path,) = write(tmp_path, "model_checkpoint_epoch=1.pt")
    settings = {"training data": "2 cases", "transforms": "checksum 1", "objective": "", "learning rate": 0.1}
    torch.save({"trainer": {"settings": settings}}, path)
    assert latest_checkpoint(tmp_path, "model", trainer_with(learning_rate=0.2)) == str(path)
    assert "model_checkpoint_epoch=1.pt is of an earlier release of monai_kd, whose settings cannot" in caplog.text
