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

from __future__ import annotations

import io
import runpy
import subprocess
import sys

import pytest

from monai_kd.cli import VERBS


def run(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "monai_kd", *words], capture_output=True, text=True)


def test_help_goes_to_stdout():
    done = run("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")] == list(VERBS)


def test_console_that_lacks_a_letter_does_not_end_a_command(monkeypatch):
    """As the code pages of Windows do, with a name or the `±` of a table."""
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="ascii") for _ in range(2)]
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    monkeypatch.setattr(sys, "argv", ["monai_kd", "ü"])
    with pytest.raises(SystemExit, match="2"):
        runpy.run_module("monai_kd", run_name="__main__")
    streams[1].flush()
    assert b"but got '\\xfc'" in streams[1].buffer.getvalue()


def test_wrong_verb_gives_exit_code_2():
    done = run("dmo")
    assert (done.returncode, done.stdout) == (2, "")
    assert "did you mean demo?" in done.stderr
