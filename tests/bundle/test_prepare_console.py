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

"""The last line of a run that fails says why, and noise is left out."""

from __future__ import annotations

import errno
import json
import logging
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from ignite.engine import Engine
from monai.bundle import ConfigWorkflow
from monai.data import DataLoader, Dataset, MetaTensor
from monai.handlers import CheckpointLoader, StatsHandler
from monai.transforms import Compose, Lambda, SaveImage, apply_transform

from monai_kd.bundle import prepare_console, trained_weights
from monai_kd.bundle.prepare_console import ENGINES, _is_of_use, root_cause, tell_how_to_resume
from monai_kd.data import ReadableItems, WholeNiftiWriter
from monai_kd.handlers import FailedItemsHandler
from monai_kd.transforms import LoadVolumed, hounsfield_range

SENTENCE = "`folder` must hold cases, but got none."
FAILING = {
    "initialize": ["$__import__('monai_kd').bundle.prepare_console()"],
    "split": "$[][0]",
    "folder": {"_target_": "pathlib.Path", "nonsense": "@split"},
    "run": ["$print(@folder)"],
}


@pytest.fixture
def console(monkeypatch) -> Iterator[None]:
    """A console of its own, prepared."""
    monkeypatch.setattr(sys, "excepthook", sys.__excepthook__)
    with warnings.catch_warnings():
        prepare_console()
        yield
    for name in (*(f"ignite.engine.engine.{engine}" for engine in ENGINES), "monai.handlers.StatsHandler"):
        logging.getLogger(name).removeFilter(_is_of_use)


def caught(function: Any) -> BaseException:
    with pytest.raises(Exception) as error:  # noqa: PT011
        function()
    return error.value


def refuse(item: Any) -> Any:
    raise ValueError(SENTENCE)


def wrapped() -> None:
    try:
        refuse(0)
    except ValueError as error:
        raise RuntimeError("Failed to evaluate ConfigExpression: ...") from error


def told(error: BaseException, capsys: Any) -> str:
    sys.excepthook(type(error), error, error.__traceback__)
    return capsys.readouterr().err


@pytest.mark.usefixtures("console")
def test_cause_is_the_last_line_below_the_traceback(capsys):
    shown = told(caught(wrapped), capsys)
    assert shown.splitlines()[-2:] == ["", f"error: ValueError: {SENTENCE}"]
    assert "Traceback (most recent call last)" in shown
    assert "in refuse" in shown


@pytest.mark.usefixtures("console")
def test_every_error_ends_with_one_such_line(capsys):
    prepare_console()  # twice
    for function in (lambda: refuse(0), wrapped):
        shown = told(caught(function), capsys)
        assert shown.splitlines()[-1] == f"error: ValueError: {SENTENCE}"
        assert shown.count("\nerror: ") == 1
    assert "error: " not in told(KeyboardInterrupt(), capsys)


def test_cause_in_a_configuration(tmp_path):
    """Two expressions and a component deep, as MONAI wraps them."""
    (tmp_path / "run.json").write_text(json.dumps(FAILING | {"initialize": []}))
    workflow = ConfigWorkflow(str(tmp_path / "run.json"), workflow_type=None, logging_file=False)
    workflow.initialize()
    assert root_cause(caught(workflow.run)) == "IndexError: list index out of range"


def test_cause_is_the_sentence_that_was_meant():
    """An error that explains another is not taken apart."""

    def explain() -> None:
        try:
            [][0]
        except IndexError as error:
            raise ValueError(SENTENCE) from error

    assert root_cause(caught(explain)) == ""


@pytest.mark.parametrize("workers", [0, 1])
def test_cause_in_a_transform(workers):
    loader = DataLoader(Dataset([0], Lambda(refuse)), num_workers=workers)
    assert root_cause(caught(lambda: list(loader))) == f"ValueError: {SENTENCE}"


@pytest.mark.usefixtures("console")
def test_noise_is_left_out(caplog):
    caplog.set_level(logging.INFO)
    for engine in ENGINES:
        logger = logging.getLogger(f"ignite.engine.engine.{engine}")
        for iteration in (0, 62):
            logger.info(f"Engine run resuming from iteration {iteration}, epoch 0 until 1 epochs")
    logging.getLogger("monai.data.nvimgcodec_pydicom_plugin").warning("missing")
    assert [record.getMessage() for record in caplog.records] == [
        "Engine run resuming from iteration 62, epoch 0 until 1 epochs"
    ] * len(ENGINES)
    with warnings.catch_warnings(record=True) as seen:
        warnings.warn("NvImgCodecPydicomReader: required package is not installed")
        warnings.warn("something else")
    assert [str(warning.message) for warning in seen] == ["something else"]


@pytest.mark.slow
@pytest.mark.parametrize("verb", [["run"], ["run_workflow", "--workflow_name", "monai_kd.bundle.KDWorkflow"]])
def test_command_ends_with_the_cause_and_exit_code_1(tmp_path, verb):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "metadata.json").write_text('{"version": "0.1.0"}')
    (tmp_path / "configs" / "train.json").write_text(json.dumps(FAILING))
    words = [sys.executable, "-m", "monai.bundle", *verb, "--config_file", str(tmp_path / "configs" / "train.json")]
    done = subprocess.run(words, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith("\n\nerror: IndexError: list index out of range")
    assert "Traceback" in done.stderr


def test_full_disk_is_named():
    """What torch says where a file is cut off does not tell why."""
    refused = RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0")
    wrapped = RuntimeError("Failed to evaluate x")
    wrapped.__cause__ = refused
    assert root_cause(wrapped).endswith("is there space left where `ckpt_dir` lies?")


REFUSED = "error: FileNotFoundError: weights must be trained first, but got no file a.pt; b makes it."


@pytest.mark.usefixtures("console")
def test_what_monai_kd_refuses_has_no_traceback(capsys, monkeypatch):
    error = caught(lambda: trained_weights("a.pt", "b"))
    shown = told(error, capsys)
    assert shown.splitlines()[-1] == REFUSED
    assert "Traceback" not in shown
    assert "MONAI_KD_TRACEBACK=1 shows where" in shown
    monkeypatch.setenv("MONAI_KD_TRACEBACK", "1")
    shown = told(error, capsys)
    assert shown.splitlines()[-1] == REFUSED
    assert "Traceback" in shown


def failed_run(transform: Any, network: Any) -> BaseException:
    """An inference over one file, whose network or transform fails."""
    dataset = ReadableItems([{"case": "a", "image": "a.nii.gz"}], transform)
    engine = Engine(lambda engine, batch: network(batch))
    FailedItemsHandler(dataset).attach(engine)
    return caught(lambda: engine.run(DataLoader(dataset, batch_size=1, collate_fn=list)))


@pytest.mark.usefixtures("console")
def test_files_that_cannot_be_read_are_a_list_without_traceback(capsys):
    shown = told(failed_run(LoadVolumed("image"), lambda batch: None), capsys)
    assert "Traceback" not in shown
    assert "error: RuntimeError: 1 files or frames could not be read, all others are done" in shown


@pytest.mark.usefixtures("console")
def test_network_that_fails_has_its_traceback(capsys):
    shown = told(failed_run(None, lambda batch: torch.nn.Conv2d(1, 2, 1)(torch.ones(1, 3, 4, 4))), capsys)
    assert "Traceback" in shown
    assert "error: RuntimeError: the run stopped at `a`, RuntimeError: Given groups=1" in shown
    with_defect = caught(lambda: hounsfield_range(torch.zeros(0)))  # of an operation in our code
    assert "Traceback" in told(with_defect, capsys)


@pytest.mark.usefixtures("console")
@pytest.mark.parametrize(
    ("code", "remedy"),
    [
        (errno.EROFS, "choose a folder that you may write to"),
        (errno.ENOTDIR, "choose a folder"),
        (errno.ENOSPC, "make room on the disk"),
    ],
)
def test_file_system_that_refuses_is_one_line_with_the_remedy(code, remedy, capsys):
    """Whoever writes: MONAI, ignite, TensorBoard."""

    def write():
        raise OSError(code, os.strerror(code), "/data/models")

    shown = told(caught(write), capsys)
    assert "Traceback" not in shown
    assert shown.splitlines()[-1].endswith(f"{os.strerror(code)}: '/data/models'; {remedy}")
    assert "Traceback" in told(caught(lambda: os.kill(os.getpid(), 10**6)), capsys)  # another OSError is a defect


@pytest.mark.usefixtures("console")
def test_checkpoint_of_more_epochs_is_refused_without_traceback(tmp_path, capsys):
    torch.save({"trainer": {"max_epochs": 9, "epoch_length": 1, "iteration": 5}}, tmp_path / "a.pt")
    engine = Engine(lambda engine, batch: None)
    CheckpointLoader(str(tmp_path / "a.pt"), {"trainer": engine}).attach(engine)
    shown = told(caught(lambda: engine.run([0], max_epochs=3)), capsys)
    assert "Traceback" not in shown
    assert "error: ValueError: Epoch count (5) in checkpoint is larger than the `engine.state.max_epochs` (3)" in shown


@pytest.mark.usefixtures("console")
def test_mask_that_cannot_be_written_is_one_line(tmp_path, capsys, full_disk):
    save = SaveImage(tmp_path, separate_folder=False, print_log=False, writer=WholeNiftiWriter)
    image = MetaTensor(torch.rand(1, 40, 40, 4), affine=torch.eye(4), meta={"filename_or_obj": "a"})
    logger = logging.getLogger("ignite.engine.engine.SupervisedEvaluator")
    with full_disk(500):
        error = failed_run(None, lambda batch: apply_transform(Compose([save]), image))
        shown = told(error, capsys)
    assert "Traceback" not in shown
    assert shown.splitlines()[-1].startswith("error: RuntimeError: the run stopped at `a`, OSError: [Errno 27]")
    try:  # as ignite logs it before the handler names the item
        raise error.__cause__ or error
    except RuntimeError:
        assert not _is_of_use(logger.makeRecord("", logging.ERROR, "", 0, "terminating", (), sys.exc_info()))


@pytest.mark.usefixtures("console")
@pytest.mark.parametrize(
    ("failure", "tracebacks"),
    [
        (lambda: trained_weights("a.pt", "b"), False),
        (lambda: [][0], True),
        (lambda: exec("raise KeyboardInterrupt"), False),
    ],
)
def test_statistics_log_the_traceback_of_a_defect_alone(failure, tracebacks, capsys):
    """MONAI's handler logs that of every exception, Ctrl-C among them."""
    engine = Engine(lambda engine, batch: failure())
    StatsHandler().attach(engine)
    written: list[logging.LogRecord] = []
    collect = logging.Handler()
    collect.emit = written.append  # type: ignore[method-assign]
    logging.getLogger("monai.handlers.StatsHandler").addHandler(collect)
    with pytest.raises((FileNotFoundError, IndexError, KeyboardInterrupt)):
        engine.run([0])
    logging.getLogger("monai.handlers.StatsHandler").removeHandler(collect)
    assert bool(written) == tracebacks


COMMAND = ["monai/bundle/__main__.py", "run", "--config_file", "['c/train.yaml','c/more.yaml']", "--max_epochs", "3"]
RESUME = "['c/train.yaml','c/more.yaml','c/resume.yaml']"


@pytest.mark.usefixtures("console")
@pytest.mark.parametrize(
    ("words", "command"),
    [
        (COMMAND, f'python -m monai.bundle run --config_file "{RESUME}" --max_epochs 3'),
        (
            ["x", "run", "--max_epochs=3", "--config_file=c/train.yaml"],
            "python -m monai.bundle run --max_epochs=3 --config_file \"['c/train.yaml','c/resume.yaml']\"",
        ),
        (["x", "run", "--config_file", RESUME], f'python -m monai.bundle run --config_file "{RESUME}"'),
        (
            ["x", "run_workflow", "--workflow_name", "monai_kd.bundle.StagedWorkflow", "--config_file", "c/train.yaml"],
            "python -m monai.bundle run_workflow --workflow_name monai_kd.bundle.StagedWorkflow --config_file "
            "c/train.yaml",
        ),
    ],
)
def test_interrupt_is_one_line_with_the_command_that_goes_on(words, command, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", words)
    (tmp_path / "resume").mkdir()
    (tmp_path / "resume" / "model_checkpoint_epoch=1.pt").touch()
    tell_how_to_resume(Engine(lambda engine, batch: None), tmp_path / "model.pt")
    assert told(KeyboardInterrupt(), capsys) == f"\nstopped; go on with: {command}\n"


@pytest.fixture
def ctrl_c() -> Iterator[Any]:
    """Ends this process as it would outside of pytest."""
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield lambda: signal.raise_signal(signal.SIGINT)
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("console")
def test_interrupt_is_for_the_process_that_trains(ctrl_c, monkeypatch, tmp_path):
    """A worker that it ends is an error of the loader, and prints a traceback."""
    tell_how_to_resume(Engine(lambda engine, batch: None), tmp_path / "model.pt")
    with pytest.raises(KeyboardInterrupt):
        ctrl_c()
    monkeypatch.setattr(os, "getpid", lambda: -1)  # as in a worker
    ctrl_c()


@pytest.mark.usefixtures("console")
def test_interrupt_is_not_lost_while_an_object_is_deleted(ctrl_c, tmp_path):
    """Python ignores exceptions there; a loader is deleted after each epoch."""

    class Loader:
        def __del__(self) -> None:
            ctrl_c()

    done = []
    trainer = Engine(lambda engine, batch: done.append(Loader() and batch))
    tell_how_to_resume(trainer, tmp_path / "model.pt")
    with pytest.raises(KeyboardInterrupt):
        trainer.run([0, 1, 2])
    assert done == [0]


@pytest.mark.usefixtures("console")
def test_interrupt_where_nothing_can_be_resumed(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", COMMAND)
    assert told(KeyboardInterrupt(), capsys) == "\nstopped.\n"
    tell_how_to_resume(Engine(lambda engine, batch: None), tmp_path / "model.pt")
    assert told(KeyboardInterrupt(), capsys).startswith("\nstopped; no epoch of the training was completed")


@pytest.mark.usefixtures("console")
@pytest.mark.skipif(not hasattr(signal, "SIGCHLD"), reason="a signal of POSIX")
def test_end_of_workers_says_nothing_behind_an_interrupt(capsys):
    """torch's handler would raise as they are terminated, in a traceback behind the one line."""
    before = signal.signal(signal.SIGCHLD, lambda *_: None)
    try:
        told(KeyboardInterrupt(), capsys)
        assert signal.getsignal(signal.SIGCHLD) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGCHLD, before)
